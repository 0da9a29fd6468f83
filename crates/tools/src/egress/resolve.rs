//! Names become addresses here, and only checked ones come out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::policy::{Clearance, EgressPolicy};

/// Finds the addresses of a host.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of a host.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// A name that may not be asked for; found again in the chain of causes of the client's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RefusedName(pub(super) String);

/// The resolver that the HTTP client is given: what it answers is what is connected to.
pub(super) struct GuardedDns {
    resolver: Arc<dyn Resolver>,
    policy: Arc<EgressPolicy>,
    clearance: Clearance,
}

impl GuardedDns {
    pub(super) fn new(
        resolver: Arc<dyn Resolver>,
        policy: Arc<EgressPolicy>,
        clearance: Clearance,
    ) -> Self {
        Self {
            resolver,
            policy,
            clearance,
        }
    }
}

impl Resolve for GuardedDns {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, policy, clearance) =
            (self.resolver.clone(), self.policy.clone(), self.clearance);
        Box::pin(async move {
            let found = resolver.resolve(name.as_str()).await?;
            if found.is_empty() {
                return Err(format!("{} has no address", name.as_str()).into());
            }
            // One bad address among good ones is an attempt, not an accident: all are refused.
            for address in &found {
                policy
                    .check_address(*address, clearance)
                    .map_err(|reason| RefusedName(format!("{}: {reason}", name.as_str())))?;
            }
            let addresses = found.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}
