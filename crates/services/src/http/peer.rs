//! From where a request comes: the other end of the connection, or what a trusted proxy says.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// The other end of the connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The proxies whose word about where a request comes from is taken. Nobody's, when there are none.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// Reads addresses and networks.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let read = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address
                .or_else(|_| text.parse::<IpNet>())
                .map_err(|_| format!("{text} is no address and no network such as 10.0.0.0/8"))
        };
        let nets: Result<Vec<IpNet>, String> = texts.iter().map(read).collect();
        Ok(Self(nets?.into()))
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// From where a request comes. `X-Forwarded-For` is read from its end, where the proxies that we know have written,
    /// as far as they are trusted: what stands before is whatever the caller likes.
    pub(crate) fn origin(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let Peer(peer) = extensions.get::<Peer>()?;
        let mut origin = peer.ip().to_canonical();
        let hops: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .collect();
        for hop in hops.into_iter().rev() {
            if !self.trusts(origin) {
                break;
            }
            let Some(before) = address(hop.trim()) else {
                break;
            };
            origin = before.to_canonical();
        }
        Some(origin)
    }
}

/// An address as proxies write it: with a port, perhaps, and in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    plain
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| text.trim_matches(['[', ']']).parse().ok())
}

/// What requests are counted under that come from an address: of IPv6, a whole network is one household's.
pub(crate) fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(proxies: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let texts: Vec<String> = proxies.iter().map(|&text| text.to_owned()).collect();
        let proxies = Proxies::parse(&texts).unwrap();
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        proxies.origin(&extensions, &headers).unwrap().to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let peer = "10.0.0.1:9";
        assert_eq!(origin(&[], peer, &["6.6.6.6"]), "10.0.0.1");
        assert_eq!(origin(&["10.0.0.0/8"], peer, &["6.6.6.6"]), "6.6.6.6");
        // The caller wrote the first one itself.
        assert_eq!(
            origin(&["10.0.0.0/8"], peer, &["1.1.1.1, 6.6.6.6"]),
            "6.6.6.6"
        );
        assert_eq!(
            origin(&["10.0.0.0/8"], peer, &["1.1.1.1", "6.6.6.6, 10.0.0.2"]),
            "6.6.6.6"
        );
        assert_eq!(
            origin(&["10.0.0.0/8"], peer, &["unknown, 10.0.0.2"]),
            "10.0.0.2"
        );
        assert_eq!(
            origin(&["10.0.0.1"], peer, &["[2001:db8::1]:4711"]),
            "2001:db8::1"
        );
        assert_eq!(
            origin(&["10.0.0.1"], "[::ffff:10.0.0.1]:9", &["6.6.6.6"]),
            "6.6.6.6"
        );
        assert!(Proxies::parse(&["10.0.0.0/33".to_owned()]).is_err());
    }

    #[test]
    fn a_household_is_a_network() {
        let six = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(household(six).to_string(), "2001:db8:1:2::");
        let four = "10.1.2.3".parse().unwrap();
        assert_eq!(household(four).to_string(), "10.1.2.3");
    }
}
