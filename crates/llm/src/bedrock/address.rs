//! Where a call goes, for which region it is signed, and whether the operator's credentials may go there.

use domain::definition::LlmConfig;
use url::Url;

use crate::Error;
use crate::endpoint::{Endpoint, is_same, parse};
use crate::error::quote;
use crate::settings::AwsSettings;
use domain::definition::Provider::Bedrock;

/// What AWS's own hosts of Bedrock begin with.
const HOSTS: [&str; 2] = ["bedrock-runtime", "bedrock-runtime-fips"];
/// What they end with.
const DOMAINS: [&str; 4] = [
    "vpce.amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.com",
    "api.aws",
];

/// Where one call goes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    /// What it is signed for.
    pub(crate) region: String,
    base: Url,
}

/// What is known of a place before anything is asked.
#[derive(Debug)]
pub(super) struct Wanted {
    base: Option<Url>,
    is_own: bool,
    /// Empty when nobody named one.
    pub(super) region: Option<String>,
}

impl Wanted {
    /// What an agent's configuration means.
    ///
    /// The rule for credentials: the operator's go to the operator's address and to AWS itself. An agent's
    /// `endpoint_url` (or `api_base`) that is any other address gets the agent's own `api_key`, or none.
    pub(super) fn of(config: &LlmConfig, settings: &AwsSettings) -> Result<Self, Error> {
        let own = own(settings)?;
        let asked = config.endpoint_url.as_ref().or(config.api_base.as_ref());
        let asked = asked
            .map(|address| parse(Bedrock, address, "llm_config.endpoint_url"))
            .transpose()?;
        let is_own = asked.as_ref().is_none_or(|asked| {
            own.as_ref().is_some_and(|own| is_same(asked, own)) || region_of(asked).is_some()
        });
        Self::at(asked.or(own), is_own, config.region.as_deref(), settings)
    }

    /// What the operator set, with this region before the operator's.
    pub(super) fn own(region: Option<&str>, settings: &AwsSettings) -> Result<Self, Error> {
        Self::at(own(settings)?, true, region, settings)
    }

    fn at(
        base: Option<Url>,
        is_own: bool,
        region: Option<&str>,
        settings: &AwsSettings,
    ) -> Result<Self, Error> {
        let of_address = base.as_ref().and_then(region_of);
        let region = of_address
            .or_else(|| region.map(str::to_owned))
            .or_else(|| settings.region.clone());
        if let Some(region) = &region {
            check(region)?;
        }
        Ok(Self {
            base,
            is_own,
            region,
        })
    }

    /// The place, with a region for which there is one by now.
    pub(super) fn in_region(
        self,
        region: String,
        config: Option<&LlmConfig>,
        settings: &AwsSettings,
    ) -> Result<Place, Error> {
        check(&region)?;
        let base = match self.base {
            Some(base) => base,
            None => parse(Bedrock, &aws_address(&region), "the address")?,
        };
        let key = || settings.token.get();
        let endpoint = match config {
            Some(config) => Endpoint::at(config, base.clone(), self.is_own, key)?,
            None => Endpoint::owned(Bedrock, base.clone(), key()),
        };
        Ok(Place {
            endpoint,
            region,
            base,
        })
    }
}

impl Place {
    /// The address of a path. Each segment is escaped as AWS's own clients do it: a model's id has colons, an ARN
    /// slashes.
    pub(super) fn url(&self, path: &[&str]) -> Url {
        below(&self.base, path)
    }

    /// The address of a path of the service that manages models, which at AWS is a host of its own.
    pub(super) fn control_url(&self, path: &[&str]) -> Url {
        let mut base = self.base.clone();
        let host = base.host_str().unwrap_or_default().to_owned();
        if region_of(&self.base).is_some()
            && let Some(at) = host.find("bedrock-runtime")
        {
            let control = format!(
                "{}{}",
                host.get(..at).unwrap_or_default(),
                host.get(at..)
                    .unwrap_or_default()
                    .replacen("bedrock-runtime", "bedrock", 1)
            );
            // It is AWS's host as before, one word shorter.
            if base.set_host(Some(&control)).is_err() {
                base.clone_from(&self.base);
            }
        }
        below(&base, path)
    }
}

fn below(base: &Url, path: &[&str]) -> Url {
    let mut whole = base.path().trim_end_matches('/').to_owned();
    for segment in path {
        whole.push('/');
        for byte in segment.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    whole.push(char::from(byte));
                }
                _ => whole.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    let mut url = base.clone();
    url.set_path(&whole);
    url.set_query(None);
    url
}

fn own(settings: &AwsSettings) -> Result<Option<Url>, Error> {
    let address = settings.endpoint.as_ref();
    address
        .map(|address| parse(Bedrock, address, "AWS_BEDROCK_ENDPOINT"))
        .transpose()
}

fn aws_address(region: &str) -> String {
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    format!("https://bedrock-runtime.{region}.{domain}")
}

/// The region of an address that is AWS's own, over TLS.
fn region_of(url: &Url) -> Option<String> {
    if url.scheme() != "https" || url.port().is_some() {
        return None;
    }
    let host = url.host_str()?;
    let rest = DOMAINS
        .iter()
        .find_map(|domain| host.strip_suffix(domain)?.strip_suffix('.'))?;
    let (rest, region) = rest.rsplit_once('.')?;
    let service = match rest.rsplit_once('.') {
        // An endpoint in a network of one's own, whose name AWS gives.
        Some((endpoint, service)) if endpoint.starts_with("vpce-") && !endpoint.contains('.') => {
            service
        }
        Some(_) => return None,
        None => rest,
    };
    (HOSTS.contains(&service) && check(region).is_ok()).then(|| region.to_owned())
}

/// A region becomes part of a host's name: nothing else may hide in it.
fn check(region: &str) -> Result<(), Error> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !region.is_empty() && region.len() <= 40 && region.chars().all(is_plain) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{} is no AWS region: write it like eu-central-1",
        quote(region)
    )))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;
    use crate::Key;

    fn settings(endpoint: Option<&str>) -> AwsSettings {
        AwsSettings {
            endpoint: endpoint.map(str::to_owned),
            region: Some("eu-central-1".to_owned()),
            token: Key::fixed("operator"),
            ..AwsSettings::default()
        }
    }

    fn place(more: Value, settings: &AwsSettings) -> Result<Place, Error> {
        let mut all = json!({"provider": "bedrock", "model": "m"});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let config: LlmConfig = serde_json::from_value(all).unwrap();
        let wanted = Wanted::of(&config, settings)?;
        let region = wanted.region.clone().unwrap();
        wanted.in_region(region, Some(&config), settings)
    }

    #[test]
    fn the_operators_credentials_go_to_aws_and_to_the_operators_address_only() {
        let settings = settings(Some("http://gateway:8080/aws"));
        for own in [
            json!({}),
            json!({"endpoint_url": "http://gateway:8080/aws/"}),
            json!({"endpoint_url": "https://bedrock-runtime.us-east-1.amazonaws.com"}),
            json!({"endpoint_url": "https://bedrock-runtime-fips.us-east-1.amazonaws.com/"}),
            json!({"api_base": "https://vpce-0a-1b.bedrock-runtime.us-east-1.vpce.amazonaws.com"}),
        ] {
            let place = place(own.clone(), &settings).unwrap();
            let key = place.endpoint.key.unwrap();
            assert_eq!(key.expose_secret(), "operator", "{own}");
        }
        for other in [
            "http://bedrock-runtime.us-east-1.amazonaws.com",
            "https://bedrock-runtime.us-east-1.amazonaws.com:8443",
            "https://bedrock-runtime.us-east-1.amazonaws.com.evil.example",
            "https://evil.bedrock-runtime.us-east-1.amazonaws.com",
            "https://bucket.s3.us-east-1.amazonaws.com",
            "https://vpce-0a.vpce-svc-1.us-east-1.vpce.amazonaws.com",
            "https://bedrock-runtime.amazonaws.com",
            "http://gateway:8080",
        ] {
            let found = place(json!({"endpoint_url": other}), &settings).unwrap();
            assert!(found.endpoint.key.is_none(), "{other}");
            let own = json!({"endpoint_url": other, "api_key": "agents"});
            let found = place(own, &settings).unwrap();
            assert_eq!(found.endpoint.key.unwrap().expose_secret(), "agents");
        }
    }

    #[test]
    fn the_region_is_that_of_the_address_then_of_the_agent_then_of_the_operator() {
        let settings = settings(None);
        let found = |more| place(more, &settings).map(|place| place.region);
        let address = "https://bedrock-runtime.us-west-2.amazonaws.com";
        let both = json!({"endpoint_url": address, "region": "us-east-1"});
        assert_eq!(found(both).unwrap(), "us-west-2");
        assert_eq!(found(json!({"region": "us-east-1"})).unwrap(), "us-east-1");
        assert_eq!(found(json!({})).unwrap(), "eu-central-1");
        for bad in ["evil.example/", "", "EU", "a@b"] {
            assert!(found(json!({"region": bad})).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_and_arns_are_escaped_as_aws_does_it() {
        let plain = place(json!({}), &settings(None)).unwrap();
        let url = |model| plain.url(&["model", model, "converse-stream"]).to_string();
        assert_eq!(
            url("eu.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            "https://bedrock-runtime.eu-central-1.amazonaws.com/model/\
             eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
        );
        let arn = url("arn:aws:bedrock:us-east-1:1:inference-profile/x?y#z");
        assert!(arn.ends_with(
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx%3Fy%23z/converse-stream"
        ));
        assert_eq!(
            plain.control_url(&["foundation-models"]).as_str(),
            "https://bedrock.eu-central-1.amazonaws.com/foundation-models"
        );
        let other = place(json!({}), &settings(Some("http://[::1]:1/aws/"))).unwrap();
        assert_eq!(
            other.url(&["model", "m"]).as_str(),
            "http://[::1]:1/aws/model/m"
        );
        assert_eq!(
            other.control_url(&["foundation-models"]).as_str(),
            "http://[::1]:1/aws/foundation-models"
        );
        let china = json!({"region": "cn-north-1"});
        let china = place(china, &settings(None)).unwrap();
        assert_eq!(
            china.endpoint.place(),
            "bedrock-runtime.cn-north-1.amazonaws.com.cn"
        );
    }
}
