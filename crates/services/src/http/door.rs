//! The door: which route needs what, and whom it lets in, before anything of a body is read.
//!
//! A route can't be added without a [`Rule`]: [`Routes`] takes none. A rule says which scope is needed, and whose the thing
//! is that the address names; a caller who is limited to agents finds there only what is theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::access::Scope;
use http::{Extensions, Method, Uri};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::access::Principal;
use super::params::no_execution;
use super::{Answer, ApiError, App, Code};

/// Whose the thing is that a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody's: the same for all.
    Nobody,
    /// All agents' together: only for callers who are not limited to some.
    Everybody,
    /// Known to the handler alone, which leaves out or refuses what is not the caller's.
    Handler,
    /// The agent's that this segment of the path names.
    Agent(&'static str),
    /// The same, of a configuration.
    Config(&'static str),
    /// The agent's whose execution it is.
    Execution(&'static str),
    /// The agent's who works by the schedule.
    Schedule(&'static str),
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What the caller must be allowed; `None` for whoever comes.
    pub scope: Option<Scope>,
    /// Whose it is.
    pub owner: Owner,
}

/// Half of a rule.
pub(crate) struct Need(Scope);

/// For whoever comes, without a key.
pub(crate) const OPEN: Rule = Rule {
    scope: None,
    owner: Owner::Nobody,
};
pub(crate) const READ: Need = Need(Scope::Read);
pub(crate) const SUBMIT: Need = Need(Scope::Submit);
pub(crate) const OPERATE: Need = Need(Scope::Operate);
pub(crate) const ADMIN: Need = Need(Scope::Admin);

impl Need {
    /// The rule for what is whose.
    pub(crate) const fn of(self, owner: Owner) -> Rule {
        Rule {
            scope: Some(self.0),
            owner,
        }
    }
}

/// The rules of a service, by path.
pub type Rules = BTreeMap<String, Vec<(Method, Rule)>>;

/// Routes, each with its rule.
pub(crate) struct Routes {
    pub(crate) router: OpenApiRouter<App>,
    pub(crate) rules: Rules,
}

impl Routes {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            router: OpenApiRouter::new(),
            rules: BTreeMap::new(),
        }
    }

    /// Adds what `routes!` makes, under one rule.
    pub(crate) fn with(mut self, rule: Rule, routes: UtoipaMethodRouter<App>) -> Self {
        for (path, item) in &routes.1.paths {
            let methods = [
                (Method::GET, item.get.is_some()),
                (Method::PUT, item.put.is_some()),
                (Method::POST, item.post.is_some()),
                (Method::PATCH, item.patch.is_some()),
                (Method::DELETE, item.delete.is_some()),
            ];
            let served = methods.into_iter().filter(|(_, is_served)| *is_served);
            let rules = self.rules.entry(path.clone()).or_default();
            rules.extend(served.map(|(method, _)| (method, rule)));
        }
        self.router = self.router.routes(routes);
        self
    }

    /// Adds others.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        for (path, rules) in other.rules {
            self.rules.entry(path).or_default().extend(rules);
        }
        self
    }
}

/// The rule of a route.
pub(crate) fn find(rules: &Rules, path: &str, method: &Method) -> Option<Rule> {
    let wanted = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let found = rules.get(path)?.iter().find(|(served, _)| served == wanted);
    found.map(|(_, rule)| *rule)
}

/// The door of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    rules: Arc<Rules>,
}

impl Door {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules: Arc::new(rules),
        }
    }

    /// What a request needs. What no route serves, and the page of the API, is for every caller who is known; what is
    /// served without a rule is for administrators.
    pub(crate) fn rule(&self, matched: Option<&str>, method: &Method) -> Rule {
        let known = Rule {
            scope: None,
            owner: Owner::Handler,
        };
        let Some(path) = matched else { return known };
        if let Some(rule) = find(&self.rules, path, method) {
            return rule;
        }
        let is_page = path == "/openapi.json" || path.starts_with("/docs");
        if is_page {
            return READ.of(Owner::Nobody);
        }
        if self.rules.contains_key(path) {
            return known;
        }
        ADMIN.of(Owner::Everybody)
    }

    /// Whether anybody may come, without a key.
    pub(crate) fn is_open(rule: Rule) -> bool {
        rule == OPEN
    }
}

/// Lets a caller in who is known, or does not.
///
/// # Errors
/// FORBIDDEN, naming the scope; or the NOT_FOUND of a thing that is not the caller's, as if there were none.
pub(crate) async fn admit(
    app: &App,
    principal: &Principal,
    rule: Rule,
    matched: Option<&str>,
    uri: &Uri,
) -> Answer<()> {
    let grants = &principal.grants;
    if let Some(scope) = rule.scope.filter(|scope| !grants.allows(*scope)) {
        return Err(lacks(scope));
    }
    if grants.is_unlimited() {
        return Ok(());
    }
    let segment = |name| segment(matched.unwrap_or_default(), uri.path(), name).unwrap_or_default();
    let covers = |agent: &str| agent.parse().is_ok_and(|agent| grants.covers(&agent));
    match rule.owner {
        Owner::Nobody | Owner::Handler => Ok(()),
        Owner::Everybody => Err(limited()),
        Owner::Agent(name) if covers(segment(name)) => Ok(()),
        Owner::Agent(name) => Err(no_agent(segment(name), Code::AgentNotFound)),
        Owner::Config(name) if covers(segment(name)) => Ok(()),
        Owner::Config(name) => Err(no_agent(segment(name), Code::ConfigNotFound)),
        Owner::Execution(name) => {
            let id = super::params::execution_id(segment(name))?;
            let row = app.engine.store().execution(id).await?;
            let row = row.ok_or_else(|| no_execution(id))?;
            if grants.covers(&row.execution.agent) {
                Ok(())
            } else {
                Err(no_execution(id))
            }
        }
        Owner::Schedule(name) => {
            let row = app.engine.schedules().get(segment(name)).await;
            match row {
                Ok(row) if grants.covers(&row.record.schedule.agent) => Ok(()),
                Ok(_) | Err(engine::Error::UnknownSchedule { .. }) => {
                    Err(no_schedule(segment(name)))
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// The segment of a path that a route calls `name`, as it was sent. What is written in another way than it is named is
/// nobody's.
fn segment<'a>(route: &str, path: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = route.split('/').zip(path.split('/'));
    let is_it = |part: &str| {
        part.strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
            == Some(name)
    };
    pairs.find(|(part, _)| is_it(part)).map(|(_, value)| value)
}

fn lacks(scope: Scope) -> ApiError {
    let message = format!(
        "this needs a key with the scope {scope}; an administrator makes one by `agentrunner keys create NAME --scope {scope}`"
    );
    ApiError::new(Code::Forbidden, message).with("scope", scope.as_str())
}

/// Says that something is about all agents.
pub(crate) fn limited() -> ApiError {
    let message = "this is about all agents, and the key is limited to some; use one without a list of agents";
    ApiError::new(Code::Forbidden, message)
}

/// Says that there is no such agent, to whoever it is kept from.
pub(crate) fn no_agent(name: &str, code: Code) -> ApiError {
    let shown: String = name.chars().take(80).collect();
    let (what, list) = match code {
        Code::ConfigNotFound => ("configuration", "/configs"),
        _ => ("agent", "/agents"),
    };
    ApiError::new(
        code,
        format!("there is no {what} {shown:?}; GET {list} lists them"),
    )
}

fn no_schedule(name: &str) -> ApiError {
    let shown: String = name.chars().take(80).collect();
    let message = format!("there is no schedule {shown:?}; GET /schedules lists them");
    ApiError::new(Code::ScheduleNotFound, message)
}

/// Takes out of a request what stands for its caller.
pub(crate) fn caller_of(extensions: &Extensions) -> Answer<super::caller::Caller> {
    extensions
        .get::<super::caller::Caller>()
        .cloned()
        .ok_or_else(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_by_the_name_that_the_route_gives_them() {
        let route = "/tasks/{id}/effects/{seq}/settle";
        let path = "/tasks/abc/effects/4/settle";
        assert_eq!(segment(route, path, "id"), Some("abc"));
        assert_eq!(segment(route, path, "seq"), Some("4"));
        assert_eq!(segment(route, path, "name"), None);
    }

    #[test]
    fn what_has_no_rule_is_for_administrators() {
        let door = Door::new(BTreeMap::new());
        let rule = door.rule(Some("/new"), &Method::GET);
        assert_eq!(rule, ADMIN.of(Owner::Everybody));
        assert!(!Door::is_open(door.rule(None, &Method::GET)));
    }
}
