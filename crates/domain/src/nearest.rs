//! Suggests the known name that a misspelt one probably meant.

/// The one of `known` that is closest to `given`, if any is close enough to be worth suggesting.
pub fn nearest<'a, I>(given: &str, known: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
{
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            (
                strsim::normalized_damerau_levenshtein(&given, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn suggests_what_was_meant_and_nothing_far_off() {
        let known = ["temperature", "max_tokens", "model"];
        assert_eq!(nearest("temprature", known), Some("temperature"));
        assert_eq!(nearest("Model", known), Some("model"));
        assert_eq!(nearest("colour", known), None);
    }
}
