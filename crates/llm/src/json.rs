//! Writes a request's JSON object field by field, straight from borrowed data to bytes.

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

/// An object under construction. An agent's `additional_params` take the place of fields of the same name,
/// except of those that make the request what it is.
pub(crate) struct Fields<'a, M> {
    map: M,
    extra: Option<&'a Map<String, Value>>,
    fixed: &'static [&'static str],
}

impl<'a, M: SerializeMap> Fields<'a, M> {
    /// Begins. Fields named in `fixed` can't be replaced.
    pub(crate) const fn new(
        map: M,
        extra: Option<&'a Map<String, Value>>,
        fixed: &'static [&'static str],
    ) -> Self {
        Self { map, extra, fixed }
    }

    /// Adds a field.
    pub(crate) fn put(
        &mut self,
        name: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), M::Error> {
        let is_replaced = self.extra.is_some_and(|extra| extra.contains_key(name));
        if is_replaced && !self.fixed.contains(&name) {
            return Ok(());
        }
        self.map.serialize_entry(name, value)
    }

    /// Adds a field if it has a value.
    pub(crate) fn some(
        &mut self,
        name: &str,
        value: Option<impl Serialize>,
    ) -> Result<(), M::Error> {
        match value {
            Some(value) => self.put(name, &value),
            None => Ok(()),
        }
    }

    /// Adds a list if it is not empty.
    pub(crate) fn list(&mut self, name: &str, items: &[impl Serialize]) -> Result<(), M::Error> {
        if items.is_empty() {
            return Ok(());
        }
        self.put(name, items)
    }

    /// Adds the additional parameters and ends.
    pub(crate) fn end(mut self) -> Result<M::Ok, M::Error> {
        for (name, value) in self.extra.into_iter().flatten() {
            if !self.fixed.contains(&name.as_str()) {
                self.map.serialize_entry(name, value)?;
            }
        }
        self.map.end()
    }
}
