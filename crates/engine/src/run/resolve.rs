//! Finds out what the tool calls of an answer refer to. Everything in them is the model's word and trusted in nothing.

use domain::ToolCall;
use domain::definition::{Builtin, Definition, ToolKind};
use domain::nearest::nearest;
use domain::step::CallTarget;
use serde_json::Value;
use tools::{Offer, Schemas};

use crate::pins::Granted;

/// What each call refers to, in order.
pub(super) fn targets(
    schemas: &Schemas,
    definition: &Definition,
    calls: &[ToolCall],
    granted: &Granted,
) -> Vec<CallTarget> {
    calls
        .iter()
        .map(|call| target(schemas, definition, call, granted))
        .collect()
}

fn target(
    schemas: &Schemas,
    definition: &Definition,
    call: &ToolCall,
    granted: &Granted,
) -> CallTarget {
    let mut offers = granted.offers.iter();
    let Some(offer) = offers.find(|offer| offer.name == call.name) else {
        let message = match granted.withheld.contains(&call.name) {
            true => domain::pin::withheld(&definition.name, &call.name),
            false => unknown_tool(&call.name, &granted.offers),
        };
        return CallTarget::Refused { message };
    };
    let value = match valid_arguments(schemas, offer, &call.arguments) {
        Err(why) => {
            let message = format!("not called: {why}");
            return CallTarget::Refused { message };
        }
        Ok(value) => value,
    };
    let entry = definition.tool(&offer.entry);
    if entry.and_then(domain::definition::Tool::builtin) == Some(Builtin::AskHuman) {
        return CallTarget::Person;
    }
    let approval = offer.approval
        || definition
            .approval_reason(&offer.entry, &offer.name, &value)
            .is_some();
    if let Some(agent) = entry.and_then(domain::definition::Tool::agent) {
        let hand_over = entry
            .is_some_and(|entry| matches!(&entry.kind, ToolKind::Agent(agent) if agent.hand_over));
        return CallTarget::Agent {
            agent,
            approval,
            hand_over,
        };
    }
    CallTarget::Tool {
        entry: offer.entry.clone(),
        effect: offer.effect,
        approval,
        pin: offer.pin.as_ref().map(|sight| sight.fingerprint.clone()),
    }
}

/// The arguments, if the tool takes them.
pub(crate) fn valid_arguments(
    schemas: &Schemas,
    offer: &Offer,
    text: &str,
) -> Result<Value, String> {
    let value = arguments(text)?;
    schemas
        .validate_arguments(&offer.parameters, &value)
        .map_err(|violations| {
            let violations = violations
                .into_iter()
                .take(10)
                .collect::<Vec<_>>()
                .join("; ");
            format!("the arguments are not valid: {violations}")
        })?;
    Ok(value)
}

/// The arguments as JSON; none at all is an empty object.
pub(super) fn arguments(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("the arguments must be a JSON object".to_owned()),
        Err(error) => Err(format!("the arguments are not JSON: {error}")),
    }
}

fn unknown_tool(name: &str, offers: &[Offer]) -> String {
    let name: String = name.chars().take(80).collect();
    let known = offers.iter().map(|offer| offer.name.as_str());
    match nearest(&name, known.clone()) {
        Some(meant) => format!("there is no tool {name:?}; did you mean {meant:?}?"),
        None if offers.is_empty() => format!("there is no tool {name:?}; this agent has no tools"),
        None => format!(
            "there is no tool {name:?}; there are {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}
