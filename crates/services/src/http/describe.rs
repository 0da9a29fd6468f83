//! What the descriptions of all routes say alike, so that no handler has to repeat it: refusals, and keys.

pub(crate) mod parameters;

use http::Method;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, Content, OpenApi, Ref, RefOr, ResponseBuilder};

use super::door::{OPEN, Owner, Routes, Rule, find};

/// The refusals that a request may meet with before its handler.
const AT_THE_DOOR: [(&str, &str); 3] = [
    ("401", "The request shows no key that is valid."),
    ("403", "The caller or its origin may not do this."),
    (
        "429",
        "The caller has sent more requests than it may; `Retry-After` tells when to go on.",
    ),
];
const INSIDE: [(&str, &str); 3] = [
    ("500", "Something in AgentRunner went wrong."),
    (
        "503",
        "Something that is needed can't be reached, or there is no place now.",
    ),
    ("504", "The answer did not begin in time."),
];
const OF_BODIES: [(&str, &str); 3] = [
    (
        "400",
        "The body can't be understood; the message names the field.",
    ),
    ("413", "The body is too large."),
    ("415", "The content type is not taken."),
];

const OF_THINGS: [(&str, &str); 1] = [(
    "404",
    "There is no such thing, as far as this caller is told.",
)];
const OF_KEYS: [(&str, &str); 1] = [(
    "409",
    "The `Idempotency-Key` came with another request, or the state does not allow it.",
)];
const OF_PARAMETERS: [(&str, &str); 1] = [(
    "400",
    "A parameter or header can't be understood; the message names it.",
)];

/// Says that no keys are asked for.
pub(super) fn open(api: &mut OpenApi) {
    for item in api.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            operation.security = None;
        }
    }
}

/// Adds to each operation the refusals that it shares with all others, and the scope that it needs.
pub(super) fn complete(routes: &mut Routes) {
    let rules = routes.rules.clone();
    let api = routes.router.get_openapi_mut();
    for (path, item) in &mut api.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let (Some(operation), Some(rule)) = (operation, find(&rules, path, &method)) {
                refuse(operation, path, rule);
                parameters::constrain(operation, path);
                secure(operation, rule);
            }
        }
    }
    let components = api.components.get_or_insert_with(Components::new);
    let header = ApiKeyValue::new("X-API-Key");
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
}

fn refuse(operation: &mut Operation, path: &str, rule: Rule) {
    let has_body = operation.request_body.is_some();
    let door = AT_THE_DOOR.iter().filter(|_| rule != OPEN);
    let inside = INSIDE.iter().filter(|_| !path.starts_with("/health"));
    let of_bodies = OF_BODIES.iter().filter(|_| has_body);
    let is_named = !matches!(
        rule.owner,
        Owner::Nobody | Owner::Everybody | Owner::Handler
    );
    let of_things = OF_THINGS.iter().filter(|_| is_named);
    let takes_key = operation.parameters.iter().flatten();
    let takes_key = takes_key
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter.name.as_str()),
            RefOr::Ref(_) => None,
        })
        .any(|name| name == "Idempotency-Key");
    let of_keys = OF_KEYS.iter().filter(|_| takes_key);
    let has_parameters = operation.parameters.iter().flatten().next().is_some();
    let of_parameters = OF_PARAMETERS.iter().filter(|_| has_parameters);
    let all = door
        .chain(inside)
        .chain(of_bodies)
        .chain(of_things)
        .chain(of_keys)
        .chain(of_parameters);
    for (status, description) in all {
        let shape = if crate::openai::is_ours(path) {
            "OpenAiError"
        } else {
            "ErrorBody"
        };
        let schema = Content::new(Some(Ref::from_schema_name(shape)));
        let response = ResponseBuilder::new().description(*description);
        let response = response.content("application/json", schema).build();
        let entry = operation.responses.responses.entry((*status).to_owned());
        entry.or_insert_with(|| RefOr::from(response));
    }
}

fn secure(operation: &mut Operation, rule: Rule) {
    let Some(scope) = rule.scope else {
        // None of them: that is how it is said that no key is needed.
        operation.security = Some(Vec::new());
        return;
    };
    let requirement = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
    operation.security = Some(vec![requirement("api_key"), requirement("bearer")]);
    let extensions = ExtensionsBuilder::new().add("x-required-scope", scope.as_str());
    operation
        .extensions
        .get_or_insert_default()
        .merge(extensions.build());
    let needs = format!("Needs the scope `{scope}`.");
    operation.description = Some(match operation.description.take() {
        Some(text) if !text.is_empty() => format!("{text}\n\n{needs}"),
        _ => needs,
    });
}
