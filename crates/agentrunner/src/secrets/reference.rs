//! What a reference names: `aws-sm://name#field` or `vault://path#field`.

use std::fmt;

/// A secret in a manager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    /// AWS Secrets Manager.
    Aws {
        /// Its name or ARN.
        name: String,
        /// The field of the JSON object that it is; all of it when there is none.
        field: Option<String>,
    },
    /// Vault's key-value store, version 2.
    Vault {
        /// Where the store is mounted.
        mount: String,
        /// The path in it.
        path: String,
        /// The field.
        field: String,
    },
}

impl Reference {
    /// Reads one; `None` when a text is no reference.
    ///
    /// # Errors
    /// It begins like one and can't be understood.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, String>> {
        let split = |rest: &str| match rest.split_once('#') {
            Some((path, field)) => (path.to_owned(), Some(field.to_owned())),
            None => (rest.to_owned(), None),
        };
        if let Some(rest) = text.strip_prefix("aws-sm://") {
            let (name, field) = split(rest);
            return Some(if name.is_empty() || field.as_deref() == Some("") {
                Err("write it as aws-sm://NAME or aws-sm://NAME#FIELD".to_owned())
            } else {
                Ok(Self::Aws { name, field })
            });
        }
        let (path, field) = split(text.strip_prefix("vault://")?);
        let parts = path.trim_matches('/').split_once('/');
        Some(match (parts, field.filter(|field| !field.is_empty())) {
            (Some((mount, path)), Some(field)) => Ok(Self::Vault {
                mount: mount.to_owned(),
                // As Vault's own API spells it, and as its command line does.
                path: path.strip_prefix("data/").unwrap_or(path).to_owned(),
                field,
            }),
            _ => Err(
                "write it as vault://MOUNT/PATH#FIELD, such as vault://secret/agentrunner#openai"
                    .to_owned(),
            ),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws { name, field: None } => write!(f, "aws-sm://{name}"),
            Self::Aws {
                name,
                field: Some(field),
            } => write!(f, "aws-sm://{name}#{field}"),
            Self::Vault { mount, path, field } => write!(f, "vault://{mount}/{path}#{field}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_other_texts() {
        let same = [
            "aws-sm://prod/openai",
            "aws-sm://arn:aws:secretsmanager:eu-west-1:1:secret:x-AbCdEf#key",
            "vault://secret/apps/agentrunner#openai",
        ];
        for text in same {
            assert_eq!(Reference::parse(text).unwrap().unwrap().to_string(), text);
        }
        let full = Reference::parse("vault://secret/data/app#k")
            .unwrap()
            .unwrap();
        assert_eq!(full.to_string(), "vault://secret/app#k");
        for bad in [
            "aws-sm://",
            "aws-sm://x#",
            "vault://secret#k",
            "vault://secret/app",
        ] {
            assert!(Reference::parse(bad).unwrap().is_err(), "{bad}");
        }
        for other in ["", "sk-abc", "https://vault/secret", "file:///x", "vault:x"] {
            assert!(Reference::parse(other).is_none(), "{other}");
        }
    }
}
