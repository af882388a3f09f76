//! Tables as other adapters and other people lay them out.

use super::*;

#[tokio::test]
async fn tables_of_other_adapters_are_read_and_written_alike() {
    let layout = |table: &str, token: &str, user: &str| Layout {
        table: table.to_owned(),
        token: token.to_owned(),
        user: user.to_owned(),
        created: None,
        users: None,
        counts: false,
        ..prisma()
    };
    let zoned: Written = |millis| format!("to_timestamp({millis} / 1000.0)");
    let plain: Written = |millis| millis.to_string();
    let bases = [
        // @auth/pg-adapter
        Base::postgres(
            r#"CREATE TABLE sessions (id SERIAL PRIMARY KEY, "userId" INTEGER NOT NULL, expires TIMESTAMPTZ NOT NULL,
               "sessionToken" VARCHAR(255) NOT NULL)"#,
            layout("sessions", "sessionToken", "userId"),
            zoned,
        ),
        // @auth/kysely-adapter, with renamed columns
        Base::postgres(
            r#"CREATE TABLE "my ""sessions" (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL,
               expires bigint NOT NULL, session_token text NOT NULL UNIQUE)"#,
            layout("my \"sessions", "session_token", "user_id"),
            plain,
        ),
        // Tokens of a type that takes other letters for the same
        Base::postgres(
            r#"CREATE TABLE session (id SERIAL, "userId" TEXT NOT NULL, expires TIMESTAMPTZ NOT NULL,
               "sessionToken" uuid NOT NULL UNIQUE)"#,
            layout("session", "sessionToken", "userId"),
            zoned,
        ),
        // Columns of a fixed length
        Base::postgres(
            r#"CREATE TABLE session (id CHAR(25) PRIMARY KEY, "userId" CHAR(25) NOT NULL, expires TIMESTAMPTZ NOT NULL,
               "sessionToken" CHAR(36) NOT NULL UNIQUE)"#,
            layout("session", "sessionToken", "userId"),
            zoned,
        ),
        // @auth/drizzle-adapter
        Base::sqlite(
            r#"CREATE TABLE session (id INTEGER PRIMARY KEY, "userId" text NOT NULL, expires integer NOT NULL,
               "sessionToken" text NOT NULL)"#,
            layout("session", "sessionToken", "userId"),
            plain,
        ),
        Base::sqlite(
            r#"CREATE TABLE session (id INTEGER PRIMARY KEY, "userId" text NOT NULL, expires integer NOT NULL,
               "sessionToken" text COLLATE NOCASE NOT NULL UNIQUE)"#,
            layout("session", "sessionToken", "userId"),
            plain,
        ),
    ];
    let users = ["7", "5a3f8e1c-0000-4000-8000-000000000007", "uuid", "c", "u7", "nocase"];
    for (base, user) in bases.into_iter().zip(users) {
        let Layout { table: name, token: column, user: user_column, .. } = &base.layout;
        let (name, expires) = (quoted(name), (base.written)(NOW + DAY));
        let (id, value) = if user == "c" { ("id, ", "'i1', ") } else { ("", "") };
        let token = if user == "uuid" { "5f1c2a34-9a7e-4c1b-8f00-0123456789ab" } else { "t1" };
        base.sql(&format!(
            r#"INSERT INTO {name} ({id}{}, {}, expires) VALUES ({value}'{token}', '{user}', {expires})"#,
            quoted(column),
            quoted(user_column)
        ));
        let table = base.table();
        table.look().await.unwrap();
        let row = table.find(token, LIVE).await.unwrap().unwrap();
        assert_eq!((row.subject.as_str(), row.times.expires_at), (user, at(NOW + DAY)));
        table.extend(token, at(NOW + 30 * DAY), at(NOW), at(NOW + 29 * DAY)).await.unwrap();
        assert_eq!(ends(&*table, token).await, Some(NOW + 30 * DAY));
        for other in ["not an id", "cc", "cjld2cjxh0000qzrmn831i7rn"] {
            assert_eq!(table.list(other, None, 9).await.unwrap(), Vec::<String>::new(), "{other}");
            let sessions = vec![session_id(token)];
            table.delete(&Rows::Listed { subject: other.to_owned(), sessions }).await.unwrap();
        }
        for other in
            [token[..1].to_owned(), token.to_uppercase(), token.replace('-', "x"), token.replace('-', "")]
        {
            assert!(
                other == token || table.find(&other, LIVE).await.unwrap().is_none(),
                "nor by other letters: {other}"
            );
        }
        table.delete(&Rows::Session("x".to_owned())).await.unwrap();
        let sessions = table.list(user, None, 9).await.unwrap();
        assert_eq!(sessions, [session_id(token)]);
        table.delete(&Rows::Listed { subject: user.to_owned(), sessions }).await.unwrap();
        assert_eq!(ends(&*table, token).await, None);
    }
}

/// Rows of two partitions have the same ctid.
#[tokio::test]
async fn a_partition_s_row_is_not_taken_for_another_s() {
    let of_two = |token_type: &str| {
        let ddl = format!(
            r#"CREATE TABLE "Session" ("sessionToken" {token_type} NOT NULL, "userId" TEXT NOT NULL, "expires" bigint NOT NULL)
               PARTITION BY LIST ("userId");
               CREATE TABLE one PARTITION OF "Session" FOR VALUES IN ('alice');
               CREATE TABLE two PARTITION OF "Session" FOR VALUES IN ('bob');"#
        );
        let layout = Layout { created: None, users: None, ..prisma() };
        Base::postgres(&ddl, layout, |millis| millis.to_string())
    };
    let base = of_two("TEXT");
    let now = Clock::system().now().judged.as_millis() - 600_000;
    let (over, live) = (now - 1, now + DAY);
    base.sql(&format!(r#"INSERT INTO "Session" VALUES ('t1', 'alice', {live}), ('t2', 'bob', {over})"#));
    let table = base.table();
    assert!(table.extend("t1", at(now + 2 * DAY), at(now), at(live)).await.unwrap());
    assert_eq!(ends(&*table, "t1").await, Some(now + 2 * DAY));
    assert_eq!(ends(&*table, "t2").await, Some(over), "not revived with it");
    assert_eq!(table.purge(Bounds { ended_by: at(now), created_by: None }, at(now), 9).await.unwrap(), 1);
    assert_eq!(ends(&*table, "t1").await, Some(now + 2 * DAY), "not deleted with it");

    let bytes = of_two("bytea").table().look().await;
    assert!(matches!(bytes, Err(TableError::Malformed(ref why)) if why.contains("bytea")), "{bytes:?}");
}
