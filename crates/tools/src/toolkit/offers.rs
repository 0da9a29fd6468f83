//! What each version of a definition offers, kept: it is asked for at every turn of every model.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use domain::ConfigVersion;
use domain::definition::{Approval, Tool, ToolKind};
use serde_json::{Value, json};

use crate::mcp::{Mcp, Server};
use crate::{Error, Offer, api, builtin};

/// How many versions are kept.
const MAX_KEPT: usize = 4096;

/// The offers of the versions that were asked for.
#[derive(Default)]
pub(super) struct Offers {
    kept: RwLock<HashMap<ConfigVersion, Kept>>,
}

struct Kept {
    offers: Arc<Vec<Offer>>,
    /// The servers that they come from, with the generation of each one's list.
    sources: Vec<(Arc<Server>, u64)>,
}

impl Offers {
    /// The offers of a version, if nothing has changed since they were gathered.
    pub(super) fn known(&self, version: &ConfigVersion) -> Option<Arc<Vec<Offer>>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let known = kept.get(version)?;
        known
            .sources
            .iter()
            .all(|(server, generation)| server.is_at(*generation))
            .then(|| known.offers.clone())
    }

    /// Gathers the offers of a version and keeps them.
    pub(super) async fn gather(
        &self,
        mcp: &Mcp,
        version: &ConfigVersion,
        entries: &[Tool],
    ) -> Result<Arc<Vec<Offer>>, Error> {
        // All servers at once: an agent with several waits for the slowest only.
        let gathered = entries.iter().map(|entry| of_entry(mcp, entry));
        let gathered = futures::future::try_join_all(gathered).await?;
        let mut offers = Vec::new();
        let mut sources = Vec::new();
        for (of_entry, source) in gathered {
            offers.extend(of_entry);
            sources.extend(source);
        }
        refuse_same_names(&offers)?;
        let offers = Arc::new(offers);
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let new = Kept {
            offers: offers.clone(),
            sources,
        };
        kept.insert(version.clone(), new);
        Ok(offers)
    }
}

type OfEntry = (Vec<Offer>, Option<(Arc<Server>, u64)>);

async fn of_entry(mcp: &Mcp, entry: &Tool) -> Result<OfEntry, Error> {
    let invalid = |message| Error::Invalid {
        entry: entry.name.clone(),
        message,
    };
    match &entry.kind {
        ToolKind::Mcp(server) => {
            let (offers, server, generation) = mcp.offers(entry, server).await?;
            Ok((offers, Some((server, generation))))
        }
        ToolKind::Api(api) => {
            api::check(api).map_err(invalid)?;
            Ok((vec![offer(entry, "", api::parameters(api))], None))
        }
        ToolKind::Function(function) => {
            builtin::check(function).map_err(invalid)?;
            let known = entry
                .builtin()
                .ok_or_else(|| invalid("there is no such built-in function".to_owned()))?;
            let usual = builtin::description(known);
            Ok((vec![offer(entry, usual, builtin::parameters(known))], None))
        }
        ToolKind::Agent(_) => {
            let usual = "Hands a task to another agent and answers with its result.";
            Ok((vec![offer(entry, usual, agent_parameters())], None))
        }
    }
}

fn offer(entry: &Tool, usual: &str, parameters: Value) -> Offer {
    let covers = |approval: &Approval| approval.covers(&entry.name);
    Offer {
        name: entry.name.clone(),
        description: if entry.description.is_empty() {
            usual.to_owned()
        } else {
            entry.description.clone()
        },
        parameters,
        entry: entry.name.clone(),
        effect: entry.effect_of(&entry.name),
        approval: entry.requires_approval.as_ref().is_some_and(covers),
        pin: None,
    }
}

fn agent_parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "task": {
                "type": "string",
                "description": "What the agent is to do, complete in itself: it knows nothing of this conversation.",
                "minLength": 1,
            },
            "context": {
                "type": "string",
                "description": "Facts, earlier results or texts that it needs for that.",
            },
        },
        "required": ["task"],
        "additionalProperties": false,
    })
}

/// Two tools of one name: a server could put itself in another one's place.
fn refuse_same_names(offers: &[Offer]) -> Result<(), Error> {
    let mut entries = BTreeMap::new();
    for offer in offers {
        if let Some(other) = entries.insert(&offer.name, &offer.entry) {
            return Err(Error::Invalid {
                entry: offer.entry.clone(),
                message: format!(
                    "its tool {:?} has the name of a tool of {other:?}; put one of them into deny, or rename the entry",
                    offer.name
                ),
            });
        }
    }
    Ok(())
}
