//! Secrets that are kept elsewhere: `file://`, AWS Secrets Manager, Vault. They are read before the settings are, and
//! looked at again while the process lives (`secrets/renewal.rs`).

mod managers;
mod reference;
mod renewal;
mod vault;

use std::collections::BTreeMap;

pub(crate) use managers::Managers;
pub(crate) use reference::Reference;
pub(crate) use renewal::{Keeper, keep};

use crate::settings::Mistake;

/// Variables whose value is a reference to a secret manager, by name.
pub(crate) type References = BTreeMap<String, Reference>;

/// Puts the values of all references in their places, in layers of which the first is the strongest. Whoever needs no
/// manager asks none.
///
/// # Errors
/// All references that can't be resolved; named, and without any value.
pub(crate) fn resolve(
    layers: &mut [BTreeMap<String, String>],
) -> Result<(Option<Managers>, References), Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut references = References::new();
    // The weakest first, so that the strongest has the last word.
    for layer in layers.iter().rev() {
        // An empty one is as good as none.
        for (name, value) in layer.iter().filter(|(_, value)| !value.is_empty()) {
            match Reference::parse(value) {
                None => {
                    references.remove(name);
                }
                Some(Ok(reference)) => {
                    references.insert(name.clone(), reference);
                }
                Some(Err(message)) => mistakes.push(mistake(name, value, message)),
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    if references.is_empty() {
        return Ok((None, references));
    }
    let look = |name: &str| {
        let mut set = layers.iter().filter_map(|layer| layer.get(name));
        set.find(|value| !value.is_empty()).cloned()
    };
    let managers = Managers::new(&look);
    let values = fetch(&managers, &references)?;
    for layer in layers.iter_mut() {
        for (name, value) in layer.iter_mut() {
            let is_reference = Reference::parse(value).is_some();
            if let Some(found) = values.get(name).filter(|_| is_reference) {
                value.clone_from(found);
            }
        }
    }
    Ok((Some(managers), references))
}

fn fetch(
    managers: &Managers,
    references: &References,
) -> Result<BTreeMap<String, String>, Vec<Mistake>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| vec![mistake("", "", error.to_string())])?;
    runtime.block_on(async {
        let mut values = BTreeMap::new();
        let mut mistakes = Vec::new();
        for (name, reference) in references {
            match managers.get(reference).await {
                Ok(value) => {
                    values.insert(name.clone(), value);
                }
                Err(message) => mistakes.push(mistake(name, &reference.to_string(), message)),
            }
        }
        if mistakes.is_empty() {
            Ok(values)
        } else {
            Err(mistakes)
        }
    })
}

fn mistake(name: &str, value: &str, message: String) -> Mistake {
    Mistake {
        name: name.to_owned(),
        value: value.to_owned(),
        message,
    }
}
