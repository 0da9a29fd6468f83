//! Keys of the API.

use std::collections::BTreeSet;

use domain::access::{Grants, Scope, key};
use domain::{ApiKey, KeyHash, KeyId};
use store::{KeyFilter, Page, Store};
use uuid::Uuid;

use super::Fixture;
use super::given::at;

fn key(n: u8) -> ApiKey {
    let text = key::mint([n; 32]);
    ApiKey {
        id: KeyId::from_uuid(Uuid::from_bytes([n; 16])),
        name: format!("key {n} \u{2713}"),
        hash: KeyHash::of(&text),
        hint: key::hint(&text),
        grants: Grants {
            scopes: BTreeSet::from([Scope::Read, Scope::Submit]),
            agents: n
                .is_multiple_of(2)
                .then(|| BTreeSet::from(["helper".parse().unwrap()])),
        },
        created_at: at(i64::from(n)),
        created_by: "bootstrap".to_owned(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        revoked_by: None,
    }
}

async fn all(store: &dyn Store) -> Vec<ApiKey> {
    let page = Page {
        limit: 100,
        after: None,
    };
    store
        .keys(KeyFilter {
            active_at: None,
            page,
        })
        .await
        .unwrap()
}

pub(crate) async fn a_key_is_kept_once_and_listed_newest_first(f: &impl Fixture) {
    let store = f.store();
    assert!(all(&*store).await.is_empty());
    for n in [2, 1, 3] {
        assert!(store.add_key(key(n)).await.unwrap());
    }
    assert!(!store.add_key(key(2)).await.unwrap(), "the id is taken");
    let same_hash = ApiKey {
        id: KeyId::from_uuid(Uuid::from_bytes([9; 16])),
        ..key(2)
    };
    assert!(
        !store.add_key(same_hash).await.unwrap(),
        "the hash is taken"
    );
    assert_eq!(all(&*store).await, [key(3), key(2), key(1)]);
    let after = (key(3).created_at, key(3).id.to_string());
    let page = Page {
        limit: 1,
        after: Some(after),
    };
    let filter = KeyFilter {
        active_at: None,
        page,
    };
    assert_eq!(store.keys(filter).await.unwrap(), [key(2)]);
}

pub(crate) async fn a_revoked_key_stays_revoked_by_the_first(f: &impl Fixture) {
    let store = f.store();
    let id = key(1).id;
    assert!(!store.revoke_key(id, "ada", at(10)).await.unwrap());
    store.add_key(key(1)).await.unwrap();
    assert!(store.revoke_key(id, "ada", at(10)).await.unwrap());
    assert!(store.revoke_key(id, "bob", at(20)).await.unwrap());
    let kept = all(&*store).await.remove(0);
    assert_eq!(kept.revoked_at, Some(at(10)));
    assert_eq!(kept.revoked_by.as_deref(), Some("ada"));
}

pub(crate) async fn what_can_be_used_now_is_told_apart(f: &impl Fixture) {
    let store = f.store();
    let expiring = ApiKey {
        expires_at: Some(at(100)),
        ..key(2)
    };
    for one in [key(1), expiring.clone(), key(3)] {
        store.add_key(one).await.unwrap();
    }
    store.revoke_key(key(1).id, "ada", at(10)).await.unwrap();
    let active = async |now| {
        let page = Page {
            limit: 100,
            after: None,
        };
        let active_at = Some(at(now));
        store.keys(KeyFilter { active_at, page }).await.unwrap()
    };
    assert_eq!(active(99).await, [key(3), expiring]);
    assert_eq!(active(100).await, [key(3)]);
}

pub(crate) async fn the_last_use_only_moves_on(f: &impl Fixture) {
    let store = f.store();
    for n in [1, 2] {
        store.add_key(key(n)).await.unwrap();
    }
    let nobody = KeyId::from_uuid(Uuid::max());
    let noted = [(key(2).id, at(50)), (key(1).id, at(40)), (nobody, at(1))];
    store.note_key_use(&noted).await.unwrap();
    store.note_key_use(&[(key(2).id, at(45))]).await.unwrap();
    store.note_key_use(&[]).await.unwrap();
    let used: Vec<_> = all(&*store)
        .await
        .into_iter()
        .map(|key| key.last_used_at)
        .collect();
    assert_eq!(used, [Some(at(50)), Some(at(40))]);
}
