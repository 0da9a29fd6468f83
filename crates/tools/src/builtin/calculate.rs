//! `calculate`: arithmetic that a model should not do in its head.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, arguments};
use crate::Call;

pub(super) const DESCRIPTION: &str = "Computes an expression exactly: arithmetic, powers, roots, logarithms, \
     percentages, units (\"5 feet to cm\", \"3 GiB / 80 MB/s\"), bases (\"0xff to decimal\"). No currencies.";

/// The longest expression, in bytes.
const MAX_BYTES: usize = 1000;
/// How long one expression may take: some, such as 9^9^9^9, never end.
const MAX_TIME: Duration = Duration::from_secs(2);

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "expression": {
                "type": "string",
                "description": "Such as (17.5 * 3)^2 / 4, sqrt(2), 15% of 80, 90 minutes to hours.",
                "minLength": 1,
                "maxLength": MAX_BYTES,
            },
        },
        "required": ["expression"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    expression: String,
}

struct Until(Instant);

impl fend_core::Interrupt for Until {
    fn should_interrupt(&self) -> bool {
        Instant::now() >= self.0
    }
}

pub(super) async fn call(call: &Call<'_>) -> Result<Answer, Failure> {
    let Arguments { expression } = arguments(call)?;
    if expression.len() > MAX_BYTES {
        return Err(Failure::refused(format!(
            "an expression has at most {MAX_BYTES} bytes"
        )));
    }
    let until = Until(Instant::now() + call.timeout.min(MAX_TIME));
    let computed = tokio::task::spawn_blocking(move || compute(&expression, &until)).await;
    let text = computed
        .map_err(|_| Failure::failed("the expression could not be computed"))?
        .map_err(Failure::Failed)?;
    Ok(text.into())
}

fn compute(expression: &str, until: &Until) -> Result<String, String> {
    let mut context = fend_core::Context::new();
    context.disable_rng();
    match fend_core::evaluate_with_interrupt(expression, &mut context, until) {
        Ok(result) => Ok(result.get_main_result().to_owned()),
        Err(_) if Instant::now() >= until.0 => Err("the expression takes too long".to_owned()),
        Err(reason) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expression: &str) -> Result<String, String> {
        compute(
            expression,
            &Until(Instant::now() + Duration::from_millis(300)),
        )
    }

    #[test]
    fn it_computes() {
        assert_eq!(of("(17.5 * 3)^2 / 4").unwrap(), "689.0625");
        assert_eq!(of("0.1 + 0.2").unwrap(), "0.3");
        assert_eq!(of("90 minutes to hours").unwrap(), "1.5 hours");
        assert!(of("1 +").is_err());
        assert!(of("1 EUR to USD").is_err());
    }

    #[test]
    fn an_endless_expression_ends() {
        assert_eq!(of("9^9^9^9").unwrap_err(), "the expression takes too long");
    }
}
