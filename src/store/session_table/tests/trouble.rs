//! Tables that are not as configured, held by others, or away.

use super::*;

#[tokio::test]
async fn a_table_that_is_not_as_configured_is_told_by_what_it_lacks() {
    for base in Base::all() {
        let told = async |layout: Layout| match base.table_as(layout).look().await {
            Err(TableError::Malformed(what)) => what,
            other => panic!("{other:?}"),
        };
        let missing = told(Layout { table: "Sessions".to_owned(), ..base.layout.clone() }).await;
        assert!(missing.contains("there is no table `Sessions`"), "{missing}");
        let column = told(Layout { token: "session_token".to_owned(), ..base.layout.clone() }).await;
        assert_eq!(column, "`Session` has no column `session_token`");
        let mut layout = base.layout.clone();
        layout.users.as_mut().unwrap().columns.push("role".to_owned());
        assert_eq!(told(layout).await, "`User` has no column `role`");
        if matches!(base.site, Site::Server(_)) {
            let text = told(Layout { expires: "sessionToken".to_owned(), ..base.layout.clone() }).await;
            assert_eq!(text, "`sessionToken` is a text, and no timestamp nor bigint");
        }
    }
}

#[tokio::test]
async fn an_end_that_is_no_instant_is_the_table_s_fault() {
    let base = Base::all().remove(1);
    base.user("alice");
    base.login("seconds", "alice", NOW / 1000, NOW);
    base.login("words", "alice", NOW, NOW);
    base.sql(r#"UPDATE "Session" SET "expires" = 'tomorrow' WHERE "sessionToken" = 'words'"#);
    for token in ["seconds", "words"] {
        let found = base.table().find(token, LIVE).await;
        assert!(
            matches!(&found, Err(TableError::Malformed(what)) if what.starts_with("`expires`")),
            "{token}"
        );
    }
}

/// A table that keeps seconds is not understood, and none of its sessions is anybody's to delete.
#[tokio::test]
async fn what_is_no_instant_is_not_purged() {
    for base in Base::all().into_iter().take(2) {
        base.user("alice");
        base.login("seconds", "alice", NOW / 1000, NOW);
        base.login("undated", "alice", NOW + DAY, 0);
        let now = Clock::system().now().judged.as_millis() - 600_000;
        let over = Bounds { ended_by: at(now), created_by: Some(at(now - DAY)) };
        assert_eq!(base.table().purge(over, at(now), 10).await.unwrap(), 0);
        assert_eq!(base.count(), "2");
    }
}

#[tokio::test]
async fn all_are_deleted_whoever_else_deletes_some() {
    let base = Base::all().remove(0);
    base.user("alice");
    base.sql(&format!(
        r#"INSERT INTO "Session" SELECT 'a' || n, 'alice', {}, now(), now() FROM generate_series(1, 2500) n"#,
        (base.written)(NOW)
    ));
    let tables = [base.table(), base.table(), base.table()];
    let all = futures_util::future::join_all(tables.iter().map(|table| table.delete(&Rows::All)));
    let one = async {
        for n in (1..2500).step_by(100) {
            base.table().delete(&token(&format!("a{n}"))).await.unwrap();
        }
    };
    let (all, ()) = futures_util::future::join(all, one).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(base.count(), "0");
}

/// An application's transaction that holds a session's row holds up nobody who verifies.
#[tokio::test]
async fn a_row_that_is_held_is_not_waited_for() {
    let base = Base::all().remove(0);
    let Site::Server(schema) = &base.site else { panic!() };
    base.user("alice");
    base.login("t1", "alice", NOW + DAY, NOW);
    let table = base.table();
    table.look().await.unwrap();
    let hold = format!("BEGIN; SELECT * FROM {schema}.\"Session\" FOR UPDATE; SELECT pg_sleep(3); COMMIT");
    let holding = std::thread::spawn(move || SERVER.sql(&hold));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let extended = table.extend("t1", at(NOW + 30 * DAY), at(NOW), at(NOW + 29 * DAY));
    tokio::time::timeout(Duration::from_secs(2), extended).await.expect("at once").unwrap();
    assert_eq!(ends(&*table, "t1").await, Some(NOW + DAY));
    holding.join().unwrap();
}

#[tokio::test]
async fn a_user_without_rights_and_a_session_without_its_user_are_noticed() {
    let base = Base::all().remove(0);
    let Site::Server(schema) = &base.site else { panic!() };
    base.user("alice");
    base.login("t1", "alice", NOW + DAY, NOW);
    base.sql(r#"ALTER TABLE "Session" DROP CONSTRAINT "Session_userId_fkey"; DELETE FROM "User""#);
    assert!(base.table().find("t1", LIVE).await.unwrap().is_none(), "the application would not accept it");
    let _done = SERVER.sql(&format!(
        r#"CREATE ROLE reader_{schema} LOGIN PASSWORD 'a password of the tests'; GRANT USAGE ON SCHEMA {schema} TO reader_{schema};
           GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader_{schema}"#
    ));
    let url = SERVER.url().replace("countersign@", &format!("reader_{schema}@"));
    let access = Access { password_file: Some(SERVER.password_file()), ..Access::default() };
    let table = PostgresTable::new(url.parse().unwrap(), access, base.layout.clone()).unwrap();
    let looked = table.look().await;
    let told = "the user needs SELECT, UPDATE and DELETE on `Session`";
    assert!(matches!(&looked, Err(TableError::Malformed(what)) if what == told), "{looked:?}");
}

#[tokio::test]
async fn a_database_that_is_away_is_out_of_reach_and_found_again() {
    let base = Base::all().remove(1);
    let Site::File(directory) = &base.site else { panic!() };
    base.user("alice");
    base.login("t1", "alice", NOW + DAY, NOW);
    let table = base.table();
    let (file, away) = (directory.path().join("dev.db"), directory.path().join("away.db"));
    assert!(ends(&*table, "t1").await.is_some());
    std::fs::rename(&file, &away).unwrap();
    assert!(matches!(table.find("t1", LIVE).await, Err(TableError::Unreachable(_))));
    assert!(!file.exists(), "it is not made");
    std::fs::rename(&away, &file).unwrap();
    assert!(ends(&*table, "t1").await.is_some());
    // The application starts anew with another file.
    std::fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch(PRISMA_ON_SQLITE).unwrap();
    assert_eq!(ends(&*table, "t1").await, None);
}
