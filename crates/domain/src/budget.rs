//! Limits on what an execution may consume, reserved before each call rather than regretted after it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::execution::Totals;
use crate::quantity::{Money, Tokens};

/// Limits of one execution; what is absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetLimits {
    /// Prompt and answer tokens of all model calls together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Tokens>,
    /// Dollars, as far as the prices of the models are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<Money>,
    /// Tool calls begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u32>,
}

/// The budget of an agent: limits of each execution, and of all its executions of one UTC day together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Prompt and answer tokens of all model calls of an execution together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Tokens>,
    /// Dollars an execution may cost, as far as the prices of the models are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<Money>,
    /// Tool calls an execution may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u32>,
    /// The same limits over one UTC day of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<BudgetLimits>,
}

impl Budget {
    /// The limits of one execution.
    pub const fn per_execution(self) -> BudgetLimits {
        BudgetLimits {
            max_tokens: self.max_tokens,
            max_cost_usd: self.max_cost_usd,
            max_tool_calls: self.max_tool_calls,
        }
    }
}

/// Says which limit leaves no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// Tokens.
    #[error(
        "budget.max_tokens is {limit}, {used} are used and the next call needs at least {needed}; raise the limit or shorten the task"
    )]
    Tokens {
        /// The limit.
        limit: Tokens,
        /// What is used.
        used: Tokens,
        /// What the next call needs at least.
        needed: Tokens,
    },
    /// Money.
    #[error(
        "budget.max_cost_usd is {limit} and {used} is spent; raise the limit or use a cheaper model"
    )]
    Cost {
        /// The limit.
        limit: Money,
        /// What is spent.
        used: Money,
    },
    /// Tool calls.
    #[error(
        "budget.max_tool_calls is {limit} and {wanted} would be begun; raise the limit or shorten the task"
    )]
    ToolCalls {
        /// The limit.
        limit: u32,
        /// How many there would be.
        wanted: u32,
    },
}

impl BudgetLimits {
    /// The tighter of each limit.
    pub fn and(self, other: Self) -> Self {
        fn tighter<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            max_tokens: tighter(self.max_tokens, other.max_tokens),
            max_cost_usd: tighter(self.max_cost_usd, other.max_cost_usd),
            max_tool_calls: tighter(self.max_tool_calls, other.max_tool_calls),
        }
    }

    /// What is left after `used`: the limits that a child inherits.
    pub fn remaining(self, used: &Totals) -> Self {
        Self {
            max_tokens: self.max_tokens.map(|limit| limit.minus(used.usage.total())),
            max_cost_usd: self.max_cost_usd.map(|limit| limit.minus(used.cost_usd)),
            max_tool_calls: self
                .max_tool_calls
                .map(|limit| limit.saturating_sub(used.tool_calls)),
        }
    }

    /// One of `n` equal parts: what each of so many children may have at once.
    pub fn part_of(self, n: u32) -> Self {
        let n = n.max(1);
        Self {
            max_tokens: self.max_tokens.map(|limit| Tokens(limit.0 / u64::from(n))),
            max_cost_usd: self
                .max_cost_usd
                .map(|limit| Money::from_nanos(limit.nanos() / u64::from(n))),
            max_tool_calls: self.max_tool_calls.map(|limit| limit / n),
        }
    }

    /// What is left after others were promised `granted`.
    pub fn without(self, granted: Self) -> Self {
        Self {
            max_tokens: self
                .max_tokens
                .map(|limit| limit.minus(granted.max_tokens.unwrap_or_default())),
            max_cost_usd: self
                .max_cost_usd
                .map(|limit| limit.minus(granted.max_cost_usd.unwrap_or_default())),
            max_tool_calls: self
                .max_tool_calls
                .map(|limit| limit.saturating_sub(granted.max_tool_calls.unwrap_or_default())),
        }
    }

    /// Both together; a limit that only one has is that one's.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        fn sum<T>(a: Option<T>, b: Option<T>, add: impl Fn(T, T) -> T) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(add(a, b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            max_tokens: sum(self.max_tokens, other.max_tokens, |a, b| a + b),
            max_cost_usd: sum(self.max_cost_usd, other.max_cost_usd, |a, b| a + b),
            max_tool_calls: sum(
                self.max_tool_calls,
                other.max_tool_calls,
                u32::saturating_add,
            ),
        }
    }

    /// Makes room for a model call whose prompt is estimated at `prompt`: answers how many tokens the answer
    /// may have (`None` when nothing limits it).
    ///
    /// # Errors
    /// The limit that leaves no room.
    pub fn reserve_model_call(
        self,
        used: &Totals,
        prompt: Tokens,
    ) -> Result<Option<Tokens>, Exceeded> {
        if let Some(limit) = self.max_cost_usd
            && used.cost_usd >= limit
        {
            return Err(Exceeded::Cost {
                limit,
                used: used.cost_usd,
            });
        }
        let Some(limit) = self.max_tokens else {
            return Ok(None);
        };
        let used = used.usage.total();
        let room = limit.minus(used).minus(prompt);
        if room == Tokens(0) {
            return Err(Exceeded::Tokens {
                limit,
                used,
                needed: prompt + Tokens(1),
            });
        }
        Ok(Some(room))
    }

    /// Makes room for beginning `calls` tool calls at once.
    ///
    /// # Errors
    /// The limit that leaves no room.
    pub fn reserve_tool_calls(self, used: &Totals, calls: u32) -> Result<(), Exceeded> {
        let wanted = used.tool_calls.saturating_add(calls);
        match self.max_tool_calls {
            Some(limit) if wanted > limit => Err(Exceeded::ToolCalls { limit, wanted }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quantity::Usage;

    fn used(tokens: u64) -> Totals {
        Totals {
            usage: Usage {
                input_tokens: Tokens(tokens),
                ..Usage::default()
            },
            ..Totals::default()
        }
    }

    proptest! {
        #[test]
        fn what_is_reserved_fits(limit in 0u64..10_000, spent in 0u64..10_000, prompt in 0u64..10_000) {
            let limits = BudgetLimits { max_tokens: Some(Tokens(limit)), ..BudgetLimits::default() };
            match limits.reserve_model_call(&used(spent), Tokens(prompt)) {
                Ok(Some(room)) => prop_assert!(room.0 > 0 && spent + prompt + room.0 <= limit),
                Ok(None) => prop_assert!(false, "a limit was ignored"),
                Err(_) => prop_assert!(spent + prompt >= limit),
            }
        }
    }

    proptest! {
        #[test]
        fn shares_never_exceed_the_whole(limit in 0u64..10_000, granted in 0u64..10_000, among in 0u32..60) {
            let limits = |n| BudgetLimits {
                max_tokens: Some(Tokens(n)),
                max_tool_calls: Some(u32::try_from(n).unwrap()),
                ..BudgetLimits::default()
            };
            let left = limits(limit).without(limits(granted));
            let each = left.part_of(among);
            let all = (1..among).fold(each, |sum, _| sum.plus(each));
            prop_assert!(all.max_tokens.unwrap().0 + granted.min(limit) <= limit);
            prop_assert!(u64::from(all.max_tool_calls.unwrap()) + granted.min(limit) <= limit);
            prop_assert_eq!(all.max_cost_usd, None);
        }
    }

    #[test]
    fn the_tighter_limit_holds() {
        let a = BudgetLimits {
            max_tokens: Some(Tokens(5)),
            ..BudgetLimits::default()
        };
        let b = BudgetLimits {
            max_tokens: Some(Tokens(9)),
            max_tool_calls: Some(1),
            ..BudgetLimits::default()
        };
        assert_eq!(a.and(b).max_tokens, Some(Tokens(5)));
        assert_eq!(a.and(b).max_tool_calls, Some(1));
        assert!(a.and(b).reserve_tool_calls(&used(0), 2).is_err());
    }
}
