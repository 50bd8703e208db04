//! API keys and tickets, over both databases.

use proto::v1::{
    ApiKey, CreateKeyRequest, FindKeyRequest, KeyRole, KeyUse, ListKeysRequest, ListRevocationsRequest, NoteKeyUsesRequest, Reason,
    RevokeKeyRequest, TakeTicketRequest,
};

use crate::stage::{Client, Stage, all, at_once, failure, who};

crate::contract![
    a_key_is_found_as_it_was_kept,
    the_uses_of_many_keys_are_noted_at_once_each_as_its_last,
    keys_are_listed_by_tenant_the_newest_first,
    a_revoked_key_stays_revoked_and_is_told,
    a_ticket_is_taken_once,
    a_ticket_that_was_taken_is_known_while_the_clock_of_another_store_may_take_it_for_good,
];

fn key(id: &str, tenant: &str) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        hash: vec![7; 32],
        secret_id: "s".to_owned(),
        principal: who(tenant, "ann"),
        role: KeyRole::Admin.into(),
        tier: "pro".to_owned(),
        name: "laptop".to_owned(),
        expires_ms: 9,
        ..ApiKey::default()
    }
}

async fn create(client: &mut Client, key: ApiKey) -> Result<ApiKey, tonic::Status> {
    Ok(client.create_key(CreateKeyRequest { key: Some(key) }).await?.into_inner())
}

async fn find(client: &mut Client, id: &str) -> ApiKey {
    client.find_key(FindKeyRequest { id: id.to_owned() }).await.unwrap().into_inner()
}

async fn a_key_is_found_as_it_was_kept(stage: Stage) {
    let mut client = stage.client();
    let made = create(&mut client, key("k1", "acme")).await.unwrap();
    assert!(made.created_ms > 0);
    assert_eq!(find(&mut client, "k1").await, made);
    let twice = failure(&create(&mut client, key("k1", "other")).await.unwrap_err());
    assert_eq!((twice.reason(), twice.param.as_str()), (Reason::Conflict, "key.id"));
    let unknown = client.find_key(FindKeyRequest { id: "never".to_owned() }).await.unwrap_err();
    assert_eq!(failure(&unknown).reason(), Reason::NotFound);
    for (wrong, param) in [
        (
            ApiKey {
                id: String::new(),
                ..key("k", "")
            },
            "key.id",
        ),
        (
            ApiKey {
                hash: vec![1],
                ..key("k", "")
            },
            "key.hash",
        ),
        (ApiKey { role: 9, ..key("k", "") }, "key.role"),
        (
            ApiKey {
                name: "x".repeat(201),
                ..key("k", "")
            },
            "key.name",
        ),
        (
            ApiKey {
                expires_ms: -1,
                ..key("k", "")
            },
            "key.expires_ms",
        ),
    ] {
        assert_eq!(failure(&create(&mut client, wrong).await.unwrap_err()).param, param);
    }
    let used = |used_ms| NoteKeyUsesRequest {
        uses: vec![
            KeyUse {
                id: "k1".to_owned(),
                used_ms,
            },
            KeyUse {
                id: "never".to_owned(),
                used_ms,
            },
        ],
    };
    client.note_key_uses(used(20)).await.unwrap();
    client.note_key_uses(used(10)).await.unwrap();
    assert_eq!(find(&mut client, "k1").await.last_used_ms, 20);
}

async fn the_uses_of_many_keys_are_noted_at_once_each_as_its_last(stage: Stage) {
    let mut client = stage.client();
    for number in 0..20 {
        create(&mut client, key(&format!("k{number}"), "acme")).await.unwrap();
    }
    let use_of = |number: i64, used_ms| KeyUse {
        id: format!("k{number}"),
        used_ms,
    };
    let mut uses: Vec<_> = (0..998).map(|number| use_of(number, 100 + number)).collect();
    uses.extend([use_of(3, 50), use_of(4, 5000)]);
    client.note_key_uses(NoteKeyUsesRequest { uses: uses.clone() }).await.unwrap();
    for number in 0..20 {
        let last = if number == 4 { 5000 } else { 100 + number };
        assert_eq!(find(&mut client, &format!("k{number}")).await.last_used_ms, last, "{number}");
    }
    client.note_key_uses(NoteKeyUsesRequest::default()).await.unwrap();
    uses.push(use_of(5, 1));
    let too_many = client.note_key_uses(NoteKeyUsesRequest { uses }).await.unwrap_err();
    assert_eq!(failure(&too_many).param, "uses");
    let uses = vec![KeyUse {
        id: "a\0b".to_owned(),
        used_ms: 1,
    }];
    let no_id = client.note_key_uses(NoteKeyUsesRequest { uses }).await.unwrap_err();
    assert_eq!(failure(&no_id).param, "uses.id");
}

async fn keys_are_listed_by_tenant_the_newest_first(stage: Stage) {
    let mut client = stage.client();
    for number in 0..5 {
        create(&mut client, key(&format!("a{number}"), "acme")).await.unwrap();
        create(&mut client, key(&format!("o{number}"), "other")).await.unwrap();
    }
    let mut list = async |tenant: Option<&str>, page_size: u32, after: &str| {
        let request = ListKeysRequest {
            tenant: tenant.map(str::to_owned),
            page_size,
            after_id: after.to_owned(),
        };
        all(client.list_keys(request).await.unwrap().into_inner()).await
    };
    let acme = list(Some("acme"), 0, "").await;
    assert_eq!(acme.len(), 5);
    assert!(
        acme.iter()
            .all(|key| key.principal.as_ref().unwrap().tenant == "acme" && key.hash.is_empty())
    );
    assert!(
        acme.windows(2)
            .all(|pair| (pair[0].created_ms, &pair[0].id) > (pair[1].created_ms, &pair[1].id))
    );
    let first = list(Some("acme"), 2, "").await;
    let rest = list(Some("acme"), 0, &first[1].id).await;
    assert_eq!([first, rest].concat(), acme);
    assert_eq!(list(None, 0, "").await.len(), 10);
    assert!(list(Some(""), 0, "").await.is_empty(), "the default tenant is one like any other");
    let request = ListKeysRequest {
        tenant: Some("acme".to_owned()),
        after_id: "o1".to_owned(),
        ..ListKeysRequest::default()
    };
    let others = client.list_keys(request).await.unwrap_err();
    assert_eq!(failure(&others).reason(), Reason::NotFound, "another tenant's key is not there");
}

async fn a_revoked_key_stays_revoked_and_is_told(stage: Stage) {
    let mut client = stage.client();
    for id in ["k1", "k2"] {
        create(&mut client, key(id, "acme")).await.unwrap();
    }
    let revoke = |id: &str, tenant: Option<&str>| RevokeKeyRequest {
        id: id.to_owned(),
        tenant: tenant.map(str::to_owned),
    };
    let theirs = client.revoke_key(revoke("k1", Some("other"))).await.unwrap_err();
    assert_eq!(failure(&theirs).reason(), Reason::NotFound);
    let told = async |client: &mut Client| {
        let request = ListRevocationsRequest { within_ms: 60_000 };
        client.list_revocations(request).await.unwrap().into_inner().ids
    };
    assert!(told(&mut client).await.is_empty());
    let revoked = client.revoke_key(revoke("k1", Some("acme"))).await.unwrap().into_inner();
    assert!(revoked.revoked_ms > 0);
    let again = client.revoke_key(revoke("k1", None)).await.unwrap().into_inner();
    assert_eq!(again.revoked_ms, revoked.revoked_ms, "the first time stays");
    assert_eq!(told(&mut client).await, ["k1"]);
    assert_eq!(find(&mut client, "k1").await.revoked_ms, revoked.revoked_ms);
    assert_eq!(find(&mut client, "k2").await.revoked_ms, 0);
}

async fn a_ticket_is_taken_once(stage: Stage) {
    let take = async |mut client: Client, id: &str, expires_ms: i64| {
        let id = id.to_owned();
        client
            .take_ticket(TakeTicketRequest { id, expires_ms })
            .await
            .unwrap()
            .into_inner()
            .taken
    };
    let later = 9_000_000_000_000;
    let at_the_same_time = at_once((0..8).map(|_| {
        let mut client = stage.client();
        async move {
            let request = TakeTicketRequest {
                id: "t".to_owned(),
                expires_ms: later,
            };
            client.take_ticket(request).await.unwrap().into_inner().taken
        }
    }))
    .await;
    assert_eq!(at_the_same_time.iter().filter(|taken| **taken).count(), 1);
    assert!(take(stage.client(), "another", later).await);
    assert!(!take(stage.client(), "too late", 1).await);
    assert_eq!(stage.count("SELECT COUNT(*) FROM taken_tickets").await, 2);
}

async fn a_ticket_that_was_taken_is_known_while_the_clock_of_another_store_may_take_it_for_good(stage: Stage) {
    let minute = 60_000;
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for (id, expired) in [("of late", minute), ("of long ago", 10 * minute)] {
        let insert = format!(
            "INSERT INTO taken_tickets (id, expires_ms) VALUES ('{id}', {}) RETURNING expires_ms",
            now - expired
        );
        stage.count(&insert).await;
    }
    let request = TakeTicketRequest {
        id: "now".to_owned(),
        expires_ms: now + minute,
    };
    assert!(stage.client().take_ticket(request).await.unwrap().into_inner().taken);
    for (id, known) in [("of late", 1), ("of long ago", 0), ("now", 1)] {
        let query = format!("SELECT COUNT(*) FROM taken_tickets WHERE id = '{id}'");
        assert_eq!(stage.count(&query).await, known, "{id}");
    }
}
