//! Where a backup is: a path of this machine, or a place in an S3-compatible store.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// On this machine.
    Here(PathBuf),
    /// `s3://BUCKET/KEY`
    S3(Address),
}

impl Location {
    /// Reads what somebody typed.
    ///
    /// # Errors
    /// It is an address of a kind that is not known, or one that can't be.
    pub(crate) fn parse(typed: OsString) -> Result<Self, String> {
        let Some(text) = typed.to_str() else {
            return Ok(Self::Here(typed.into()));
        };
        if let Some(rest) = text.strip_prefix("s3://") {
            return Address::parse(rest).map(Self::S3);
        }
        let is_word = |scheme: &str| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        // Else a slip of the pen would make a folder of that name.
        match text.split_once(':') {
            Some(("s3", _)) => Err("write s3://BUCKET/PREFIX".to_owned()),
            Some((scheme, rest)) if rest.starts_with("//") && is_word(scheme) => Err(format!(
                "{scheme}:// is not known here: give a path, or s3://BUCKET/PREFIX"
            )),
            Some(_) | None => Ok(Self::Here(typed.into())),
        }
    }

    /// The last part of its name.
    pub(crate) fn file_name(&self) -> String {
        match self {
            Self::Here(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                name.to_string_lossy().into_owned()
            }
            Self::S3(address) => address.parts().1.to_owned(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(path) => write!(f, "{}", path.display()),
            Self::S3(address) => write!(f, "{address}"),
        }
    }
}

/// The longest key, in bytes: S3 takes 1024, and a name comes after a prefix.
const LONGEST: usize = 900;
/// What a key may have besides letters and digits of any alphabet: what every store takes.
const OTHERS: &str = "!-_.*'()/ =+@,&$:;";

/// An object of a bucket, or what the names of several begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    bucket: String,
    /// Without `/` at its ends; empty for the bucket itself.
    key: String,
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
        check_bucket(bucket).map_err(|why| format!("{why}: write s3://BUCKET/PREFIX"))?;
        let key = key.strip_suffix('/').unwrap_or(key);
        check_key(key)?;
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The object of that name below this prefix.
    pub(crate) fn join(&self, name: &str) -> Self {
        Self {
            bucket: self.bucket.clone(),
            key: format!("{}{name}", self.folder()),
        }
    }

    /// What the keys of everything below begin with.
    pub(crate) fn folder(&self) -> String {
        match self.key.as_str() {
            "" => String::new(),
            key => format!("{key}/"),
        }
    }

    /// Where it lies, and its name there.
    pub(crate) fn parts(&self) -> (Self, &str) {
        let (folder, name) = self.key.rsplit_once('/').unwrap_or(("", &self.key));
        let folder = Self {
            bucket: self.bucket.clone(),
            key: folder.to_owned(),
        };
        (folder, name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        match self.key.as_str() {
            "" => Ok(()),
            key => write!(f, "/{key}"),
        }
    }
}

/// By AWS's rules for names of buckets. Others could not be part of the name of a host.
fn check_bucket(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_good = (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| is_plain(byte) || byte == b'-' || byte == b'.')
        && name.bytes().next().is_some_and(is_plain)
        && name.bytes().last().is_some_and(is_plain)
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err();
    match is_good {
        true => Ok(()),
        false => Err(format!(
            "{:?} is no name of a bucket (3 to 63 of a-z, 0-9, - and .)",
            shortened(name)
        )),
    }
}

/// No key that a URL would make another one of.
fn check_key(key: &str) -> Result<(), String> {
    let shown = shortened(key);
    if key.len() > LONGEST {
        return Err(format!(
            "{shown:?} has {} bytes, and {LONGEST} is the most",
            key.len()
        ));
    }
    let is_good = |c: char| c.is_alphanumeric() || OTHERS.contains(c);
    if let Some(bad) = key.chars().find(|c| !is_good(*c)) {
        return Err(format!(
            "{shown:?} has {bad:?}, which not every store takes in a name"
        ));
    }
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    if !key.is_empty() && !key.split('/').all(is_part) {
        return Err(format!("{shown:?} has an empty part, or one of dots alone"));
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, String> {
        Location::parse(text.into())
    }

    fn address(text: &str) -> Address {
        match parse(text) {
            Ok(Location::S3(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn paths_stay_paths() {
        for path in ["backups", "/a/b", "a:b", "C:\\x", "./s3/x", "a b", "://x"] {
            assert_eq!(parse(path), Ok(Location::Here(path.into())), "{path}");
        }
    }

    #[test]
    fn an_address_is_a_bucket_and_a_key() {
        for (text, bucket, key) in [
            ("s3://acme-backups", "acme-backups", ""),
            ("s3://acme-backups/", "acme-backups", ""),
            ("s3://acme.backups/a", "acme.backups", "a"),
            ("s3://b01/nightly/prod/", "b01", "nightly/prod"),
            ("s3://b01/nächtlich/a b+c=1", "b01", "nächtlich/a b+c=1"),
        ] {
            let address = address(text);
            assert_eq!((address.bucket(), address.key()), (bucket, key), "{text}");
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
        let folder = address("s3://b01/a/b");
        let file = folder.join("c.tar.zst");
        assert_eq!(file.to_string(), "s3://b01/a/b/c.tar.zst");
        assert_eq!(file.parts(), (folder, "c.tar.zst"));
        assert_eq!(address("s3://b01").join("c").key(), "c");
        let bare = address("s3://b01/c");
        assert_eq!(bare.parts(), (address("s3://b01"), "c"));
    }

    #[test]
    fn other_kinds_and_slips_of_the_pen_are_no_folders() {
        for (text, part) in [
            ("gs://bucket/x", "gs:// is not known"),
            ("https://bucket.s3.amazonaws.com/x", "https:// is not known"),
            ("S3://bucket/x", "S3:// is not known"),
            ("s3:bucket", "write s3://BUCKET"),
            ("s3:/bucket/x", "write s3://BUCKET"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = format!("s3://b01/{}", "a".repeat(901));
        for text in [
            "s3://",
            "s3:///key",
            "s3://ab/key",
            "s3://-ab/key",
            "s3://ab-/key",
            "s3://a..b/key",
            "s3://Bucket/key",
            "s3://127.0.0.1/key",
            "s3://evil.com:443/key",
            "s3://user@evil.com/key",
            "s3://bucket?x=1/key",
            "s3://bucket#x/key",
            "s3://bücket/key",
            "s3://b01/../other/key",
            "s3://b01/a/./b",
            "s3://b01//etc",
            "s3://b01/a//b",
            "s3://b01/a//",
            "s3://b01/a?versionId=1",
            "s3://b01/a#b",
            "s3://b01/a%2e%2e",
            "s3://b01/a\\..\\b",
            "s3://b01/a\nb",
            "s3://b01/a\0b",
            long.as_str(),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
