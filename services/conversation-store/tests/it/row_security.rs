//! PostgreSQL itself keeps the principals apart: asked as the store's connections are, past the store and without any `WHERE`.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::{
    postgres,
    stage::{Running, ann, begin, conversation, failure, settings, turn, who},
};

/// Tables that hold somebody's rows: those with a tenant.
const OWNED: &str = "SELECT c.oid::regclass::text, c.relrowsecurity AND c.relforcerowsecurity
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1";

/// A connection as the store has them, and a store that was used by Ann and by Bob.
async fn used(role: Option<&str>, database: &str) -> (Running, PgConnection) {
    let store = Running::start(settings(database)).await;
    let mut client = store.client.clone();
    for principal in [ann(), who("acme", "bob"), None] {
        let id = conversation(&mut client, principal.clone()).await.id;
        let mut turn = turn(&id, "a", "hello");
        turn.principal = principal;
        begin(&mut client, turn).await;
    }
    let mut connection = PgConnection::connect(database).await.unwrap();
    if let Some(role) = role {
        sqlx::raw_sql(AssertSqlSafe(format!("SET ROLE {role}")))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    (store, connection)
}

async fn count(connection: &mut PgConnection, whose: Option<[&str; 3]>, table: &str) -> i64 {
    let mut transaction = connection.begin().await.unwrap();
    if let Some([whose, tenant, user]) = whose {
        let set =
            "SELECT set_config('unbroken.whose', $1, true), set_config('unbroken.tenant', $2, true), set_config('unbroken.user', $3, true)";
        sqlx::query(set)
            .bind(whose)
            .bind(tenant)
            .bind(user)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    let query = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    sqlx::query_scalar(query).fetch_one(&mut *transaction).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_shows_a_principal_their_own_rows_and_nobody_any() {
    let database = postgres::shared().await.database().await;
    let (store, mut connection) = used(Some("unbroken_store"), &database).await;
    let tables: Vec<(String, bool)> = {
        let rows = sqlx::query(OWNED).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    for known in ["answers", "api_keys", "conversations", "messages", "request_log", "users"] {
        assert!(tables.iter().any(|(table, _)| table == known), "{known} is not in {tables:?}");
    }
    for (table, forced) in &tables {
        assert!(forced, "{table} has no forced row-level security");
        assert_eq!(count(&mut connection, None, table).await, 0, "{table}, to nobody");
        assert_eq!(
            count(&mut connection, Some(["", "acme", "ann"]), table).await,
            0,
            "{table}, to nobody in particular"
        );
        assert_eq!(
            count(&mut connection, Some(["principal", "acme", "eve"]), table).await,
            0,
            "{table}, to Eve"
        );
    }
    for table in ["conversations", "answers"] {
        for own in [["principal", "acme", "ann"], ["principal", "acme", "bob"], ["principal", "", ""]] {
            assert_eq!(count(&mut connection, Some(own), table).await, 1, "{table}, to {own:?}");
        }
        assert_eq!(
            count(&mut connection, Some(["mesh", "", ""]), table).await,
            3,
            "{table}, to the mesh"
        );
        // What one transaction was told is over with it.
        assert_eq!(count(&mut connection, None, table).await, 0, "{table}, afterwards");
    }
    let mut transaction = connection.begin().await.unwrap();
    sqlx::raw_sql("SELECT set_config('unbroken.whose', 'principal', true), set_config('unbroken.tenant', 'acme', true), set_config('unbroken.user', 'eve', true)")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let changed = sqlx::query("UPDATE conversations SET title = 'mine'")
        .execute(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(changed.rows_affected(), 0);
    let forged = sqlx::query("INSERT INTO users (tenant_id, user_id, created_ms) VALUES ('acme', 'ann2', 1)")
        .execute(&mut *transaction)
        .await;
    assert!(
        forged.unwrap_err().to_string().contains("row-level security"),
        "nobody writes in another's name"
    );
    drop(transaction);
    connection.close().await.unwrap();
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_of_the_connections_cannot_bypass_it() {
    let database = postgres::shared().await.database().await;
    let (store, mut connection) = used(Some("unbroken_store"), &database).await;
    let can: bool = sqlx::query_scalar("SELECT rolsuper OR rolbypassrls OR rolcanlogin FROM pg_roles WHERE rolname = current_user")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(!can);
    let dropped = sqlx::query("ALTER TABLE answers DISABLE ROW LEVEL SECURITY")
        .execute(&mut connection)
        .await;
    assert!(dropped.unwrap_err().to_string().contains("must be owner"));
    connection.close().await.unwrap();
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_is_no_superuser_is_held_to_it_as_well() {
    let server = postgres::shared().await;
    let superuser = server.database().await;
    let name = superuser.rsplit('/').next().unwrap().to_owned();
    let mut connection = PgConnection::connect(&superuser).await.unwrap();
    let owner = format!("owner_{name}");
    for sql in [
        format!("CREATE ROLE {owner} LOGIN"),
        format!("ALTER DATABASE {name} OWNER TO {owner}"),
        format!("ALTER SCHEMA public OWNER TO {owner}"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
    let (store, mut as_owner) = used(None, &superuser.replace("postgres@", &format!("{owner}@"))).await;
    assert_eq!(count(&mut as_owner, None, "conversations").await, 0);
    assert_eq!(count(&mut as_owner, Some(["principal", "acme", "ann"]), "conversations").await, 1);
    let theirs = proto::v1::GetConversationRequest {
        principal: who("acme", "eve"),
        id: "x".to_owned(),
    };
    let error = store.client.clone().get_conversation(theirs).await.unwrap_err();
    assert_eq!(
        failure(&error).reason(),
        proto::v1::Reason::NotFound,
        "the store works under that role"
    );
    as_owner.close().await.unwrap();
    connection.close().await.unwrap();
    store.stop().await.unwrap();
}
