//! Which places requests may go to, besides the public ones, and which never.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use url::Host;

use super::Origin;
use super::address::{canonical, is_metadata, why_not_public};

/// What the names of this machine stand for.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What an operator allows and denies: `EGRESS_ALLOW` and `EGRESS_DENY`. Denying wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    allow: Rules,
    deny: Rules,
}

/// A rule that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a host (example.com, *.example.com), a host with a port (example.com:8080) nor a network (10.0.0.0/8)"
)]
pub struct InvalidRule(String);

/// How far a request has been cleared before its name is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clearance {
    /// An operator named the host: its addresses may be private.
    Named,
    /// Its addresses must be public.
    Public,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    hosts: Vec<HostRule>,
    networks: Vec<IpNet>,
}

/// A host, all hosts below one (`*.example.com`), or either with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    host: String,
    below: bool,
    port: Option<u16>,
}

impl EgressPolicy {
    /// Reads both lists: hosts, `host:port`, networks; separated by commas or spaces.
    ///
    /// # Errors
    /// The first rule that can't be read.
    pub fn parse(allow: &str, deny: &str) -> Result<Self, InvalidRule> {
        Ok(Self {
            allow: allow.parse()?,
            deny: deny.parse()?,
        })
    }

    /// Checks a host before it is resolved. `written` says that an operator wrote it into the definition; `only` are
    /// the hosts that the definition limits the tool to.
    pub(super) fn clear(
        &self,
        host: &Host<&str>,
        origin: &Origin,
        written: bool,
        only: &[HostRule],
    ) -> Result<Clearance, String> {
        let name = &origin.host;
        if self.deny.name(origin) {
            return Err(format!("{name} is denied by the operator"));
        }
        let allowed = self.allow.name(origin);
        if !only.is_empty() && !allowed && !only.iter().any(|rule| rule.covers(origin)) {
            return Err(format!(
                "{name} is not among the hosts that this tool may ask"
            ));
        }
        let clearance = if written || allowed {
            Clearance::Named
        } else {
            Clearance::Public
        };
        let literal = match host {
            Host::Domain(_) => None,
            Host::Ipv4(v4) => Some(IpAddr::V4(*v4)),
            Host::Ipv6(v6) => Some(IpAddr::V6(*v6)),
        };
        let local = (literal.is_none() && is_local_name(name)).then_some(LOOPBACK);
        if let Some(address) = literal.or(local) {
            self.check_address(address, clearance)
                .map_err(|reason| format!("{name}: {reason}"))?;
        }
        Ok(clearance)
    }

    /// Checks an address that is about to be connected to.
    pub(super) fn check_address(
        &self,
        address: IpAddr,
        clearance: Clearance,
    ) -> Result<(), String> {
        let address = canonical(address);
        if self.deny.address(address) {
            return Err("the address is denied by the operator".to_owned());
        }
        if self.allow.address(address) {
            return Ok(());
        }
        if is_metadata(address) {
            return Err("it is the metadata service of a cloud".to_owned());
        }
        match why_not_public(address) {
            Some(kind) if clearance == Clearance::Public => Err(format!(
                "it is {kind}; an operator can allow it with EGRESS_ALLOW"
            )),
            _ => Ok(()),
        }
    }
}

/// Whether it is a name that means this machine wherever it is asked for (RFC 6761): there is no need to ask.
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

impl Rules {
    fn name(&self, origin: &Origin) -> bool {
        self.hosts.iter().any(|rule| rule.covers(origin))
    }

    fn address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address))
    }
}

impl FromStr for Rules {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let mut rules = Self::default();
        let separator = |c: char| c == ',' || c.is_whitespace();
        for word in text.split(separator).filter(|word| !word.is_empty()) {
            if let Ok(network) = word.parse::<IpNet>() {
                rules.networks.push(network);
            } else if let Ok(address) = word.parse::<IpAddr>() {
                rules.networks.push(IpNet::from(canonical(address)));
            } else {
                rules.hosts.push(word.parse()?);
            }
        }
        Ok(rules)
    }
}

impl HostRule {
    fn covers(&self, origin: &Origin) -> bool {
        let host = origin.host.trim_end_matches('.');
        let host_fits = if self.below {
            host.strip_suffix(&self.host)
                .is_some_and(|rest| rest.ends_with('.'))
        } else {
            host == self.host
        };
        host_fits && self.port.is_none_or(|port| port == origin.port)
    }
}

impl FromStr for HostRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let invalid = || InvalidRule(text.chars().take(100).collect());
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| invalid())?))
            }
            _ => (rest, None),
        };
        // Spelt as an address spells it, so that both can be compared: lower case, punycode, short IPv6.
        let host = Host::parse(host.trim_end_matches('.')).map_err(|_| invalid())?;
        Ok(Self {
            host: host.to_string(),
            below,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn clear(policy: &EgressPolicy, url: &str) -> Result<Clearance, String> {
        let url: Url = url.parse().unwrap();
        let origin = Origin::of(&url).unwrap();
        policy.clear(&url.host().unwrap(), &origin, false, &[])
    }

    #[test]
    fn the_operators_lists_are_obeyed_and_denying_wins() {
        let policy = EgressPolicy::parse(
            "10.1.0.0/16, Internal.Example:8080 *.svc.example [::1]:9000",
            "10.1.2.0/24,evil.example",
        )
        .unwrap();
        assert_eq!(
            clear(&policy, "http://internal.example:8080/"),
            Ok(Clearance::Named)
        );
        assert_eq!(
            clear(&policy, "http://internal.example/"),
            Ok(Clearance::Public)
        );
        assert_eq!(
            clear(&policy, "http://a.b.svc.example./"),
            Ok(Clearance::Named)
        );
        assert_eq!(clear(&policy, "http://svc.example/"), Ok(Clearance::Public));
        assert_eq!(
            clear(&policy, "http://notsvc.example/"),
            Ok(Clearance::Public)
        );
        assert!(clear(&policy, "http://10.1.1.1/").is_ok());
        assert!(clear(&policy, "http://[::ffff:10.1.1.1]/").is_ok());
        assert!(clear(&policy, "http://10.1.2.3/").is_err());
        assert!(clear(&policy, "http://10.2.0.1/").is_err());
        assert!(clear(&policy, "http://[::1]:9000/").is_ok());
        assert!(clear(&policy, "http://[::1]/").is_err());
        assert!(clear(&policy, "http://evil.example/").is_err());
        assert!(clear(&policy, "http://EVIL.example./").is_err());
    }

    #[test]
    fn the_metadata_service_must_be_allowed_by_name() {
        let none = EgressPolicy::default();
        let metadata = "169.254.169.254".parse().unwrap();
        assert!(none.check_address(metadata, Clearance::Named).is_err());
        let some = EgressPolicy::parse("169.254.169.254", "").unwrap();
        assert!(some.check_address(metadata, Clearance::Public).is_ok());
    }

    #[test]
    fn the_names_of_this_machine_need_no_looking_up() {
        let none = EgressPolicy::default();
        for local in ["http://localhost/", "http://a.LOCALHOST.:8080/"] {
            assert!(clear(&none, local).is_err(), "{local}");
        }
        assert!(clear(&none, "http://localhost.example/").is_ok());
        for allowed in ["localhost", "127.0.0.0/8"] {
            let policy = EgressPolicy::parse(allowed, "").unwrap();
            assert!(clear(&policy, "http://localhost/").is_ok(), "{allowed}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "http://x",
            "a b/c",
            "host:notaport",
            "10.0.0.0/64",
            "host/24",
        ] {
            let parsed = EgressPolicy::parse(bad, "");
            assert!(parsed.is_err(), "{bad}: {parsed:?}");
        }
    }
}
