//! Row-level security: PostgreSQL itself shows a statement no rows but those of whom it runs on behalf of, whatever the statement says.
//! A second lock behind [`Scope`]: a forgotten `WHERE` finds nothing that is another's.
//!
//! Every table with a tenant and a user in its rows gets the policy when a store starts, so that no new table can be forgotten. It
//! is forced, so that it holds for the tables' owner too; and where the user of `UNBROKEN_DATABASE` could bypass it (a superuser can),
//! each connection takes a role that cannot. On whose behalf a transaction runs stands in settings that end with it: where nothing
//! was set, nothing is seen.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::scope::{Scope, Whose};

/// The role of a store whose own user could bypass the policies. It cannot log in.
const ROLE: &str = "unbroken_store";

/// Gives every table that holds somebody's rows the policy, unless it has it. One store at a time, and none waits for a table that has it.
const PROTECT: &str = "
DO $$
DECLARE
    one regclass;
BEGIN
    PERFORM set_config('client_min_messages', 'warning', true), pg_advisory_xact_lock(hashtext('unbroken isolation'));
    FOR one IN
        SELECT c.oid::regclass FROM pg_class c
        WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace
            AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
            AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'user_id' AND NOT a.attisdropped)
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity
                AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'unbroken_principal'))
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS unbroken_principal ON %s', one);
        EXECUTE format('CREATE POLICY unbroken_principal ON %s USING (CASE current_setting(''unbroken.whose'', true)
            WHEN ''mesh'' THEN true
            WHEN ''principal'' THEN tenant_id = current_setting(''unbroken.tenant'', true)
                AND user_id = current_setting(''unbroken.user'', true)
            ELSE false END)', one);
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', one);
    END LOOP;
END $$";

/// Makes the role, and lets it use the tables. Another database of the same server may make it at the same moment.
const MAKE_ROLE: &str = "
DO $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('unbroken isolation'));
    BEGIN
        CREATE ROLE unbroken_store NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT unbroken_store TO %I', current_user);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO unbroken_store', current_schema());
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO unbroken_store', current_schema());
END $$";

/// Whether who is connected could see rows past the policies.
const BYPASSES: &str = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user";

/// Whose a transaction is from now on, until it ends.
pub(super) const BECOME: &str =
    "SELECT set_config('unbroken.whose', $1, true), set_config('unbroken.tenant', $2, true), set_config('unbroken.user', $3, true)";

/// Protects the tables, and returns the role that connections are to take, if they need one.
pub(super) async fn protect(connection: &mut PgConnection) -> Result<Option<&'static str>, sqlx::Error> {
    sqlx::raw_sql(PROTECT).execute(&mut *connection).await?;
    if !bypasses(connection).await? {
        return Ok(None);
    }
    sqlx::raw_sql(MAKE_ROLE).execute(&mut *connection).await?;
    // Whoever made a role of that name before may have given it more.
    take(connection, ROLE).await?;
    if bypasses(connection).await? {
        let message = format!("the role {ROLE} of this database may bypass row-level security: ALTER ROLE {ROLE} NOSUPERUSER NOBYPASSRLS");
        return Err(sqlx::Error::Configuration(message.into()));
    }
    Ok(Some(ROLE))
}

async fn bypasses(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(BYPASSES).fetch_one(connection).await
}

/// Makes a connection one of this role, for good.
pub(super) async fn take(connection: &mut PgConnection, role: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!("SET ROLE {role}"))).execute(connection).await?;
    Ok(())
}

/// The connection that prepares the tables, before any other.
pub(super) async fn prepare(options: &sqlx::postgres::PgConnectOptions) -> Result<Option<&'static str>, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let role = protect(&mut connection).await?;
    connection.close().await?;
    Ok(role)
}

/// Whose a transaction is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Becoming {
    /// Nobody's: it was just begun.
    #[default]
    Nobody,
    /// The mesh's.
    Mesh,
    /// A principal's.
    Principal(Scope),
}

impl Becoming {
    /// Whether it has to become another's for this. A statement on what is nobody's can run as anybody.
    pub(super) fn needs(&self, whose: Whose<'_>) -> bool {
        match (self, whose) {
            (_, Whose::Nobody) | (Self::Mesh, Whose::Mesh) => false,
            (Self::Principal(is), Whose::Principal(wanted)) => is != wanted,
            _ => true,
        }
    }

    /// It has become this one's.
    pub(super) fn set(&mut self, whose: Whose<'_>) {
        *self = match whose {
            Whose::Principal(scope) => Self::Principal(scope.clone()),
            Whose::Mesh => Self::Mesh,
            Whose::Nobody => Self::Nobody,
        };
    }
}

/// What the settings of [`BECOME`] are for this one.
pub(super) fn settings(whose: Whose<'_>) -> [&str; 3] {
    match whose {
        Whose::Principal(scope) => ["principal", scope.tenant(), scope.user()],
        Whose::Mesh => ["mesh", "", ""],
        Whose::Nobody => ["", "", ""],
    }
}
