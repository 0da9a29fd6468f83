//! What the descriptions of all routes say alike, so that no handler has to repeat it: refusals, and keys.

use http::Method;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, Content, Ref, RefOr, ResponseBuilder};

use super::door::{OPEN, Routes, Rule, find};

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
    for (status, description) in door.chain(inside).chain(of_bodies) {
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
