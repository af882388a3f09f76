//! Sessions in an application's own table: a SQLite file as Prisma lays it out, which the tests write as the application
//! would.

use crate::support::{
    Home, ISSUER as OWN_ISSUER, START, Sidecar, as_caller, assert_denied, assert_refused, verify_request,
};
use countersign::clock::ManualClock;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{
    CredentialKind, IssuerRevocation, RevokeRequest, SessionRevocation, SubjectRevocation, VerifyRequest,
    VerifyResponse,
};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::time::Duration;
use tonic::{Code, Status};

const ISSUER: &str = "https://shop.example.com";
const COOKIE: &str = "__Secure-authjs.session-token";
const DAY: Duration = Duration::from_secs(86_400);
const TABLES: &str = r#"
    CREATE TABLE "User" ("id" TEXT NOT NULL PRIMARY KEY, "name" TEXT, "email" TEXT, "role" TEXT);
    CREATE TABLE "Session" ("sessionToken" TEXT NOT NULL, "userId" TEXT NOT NULL, "expires" DATETIME NOT NULL,
        "createdAt" DATETIME NOT NULL,
        FOREIGN KEY ("userId") REFERENCES "User" ("id") ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE UNIQUE INDEX "Session_sessionToken_key" ON "Session"("sessionToken");
    INSERT INTO "User" VALUES ('alice', 'Alice', 'alice@example.com', 'admin'), ('bob', NULL, NULL, NULL);
"#;

struct World {
    sidecar: Sidecar,
    hands: ManualClock,
    home: Home,
}

impl World {
    /// With these lines more in `session_table`, and these in the issuer.
    async fn start(table: &str, issuer: &str) -> Self {
        let home = Home::new();
        let file = home.path("shop.db");
        Connection::open(&file).unwrap().execute_batch(TABLES).unwrap();
        let (sidecar, hands) = home.start_at(&section(&home, table, issuer)).await;
        Self { sidecar, hands, home }
    }

    fn sql(&self, sql: &str) {
        Connection::open(self.home.path("shop.db")).unwrap().execute_batch(sql).unwrap();
    }

    /// What Auth.js writes when somebody logs in now.
    fn login(&self, token: &str, user: &str) {
        let now = self.hands.wall();
        let (expires, created) = (now.after(30 * DAY).as_millis(), now.as_millis());
        self.sql(&format!(r#"INSERT INTO "Session" VALUES ('{token}', '{user}', {expires}, {created})"#));
    }

    /// In days after the start.
    fn expires(&self, token: &str) -> Option<u64> {
        let connection = Connection::open(self.home.path("shop.db")).unwrap();
        let sql = r#"SELECT "expires" FROM "Session" WHERE "sessionToken" = ?1"#;
        let millis = connection.query_row(sql, [token], |row| row.get::<_, i64>(0)).ok()?.cast_unsigned();
        Some((millis - START.as_millis()) / 86_400_000)
    }

    async fn verify(&self, token: &str) -> Result<VerifyResponse, Status> {
        self.sidecar.verify(token).await
    }

    async fn pass(&self, by: Duration) {
        self.sidecar.pass(&self.hands, by).await;
    }
}

fn section(home: &Home, table: &str, issuer: &str) -> String {
    format!(
        "issuers:\n  - issuer: {ISSUER}\n    audiences: [shop]\n    session_table:\n      url: sqlite:{}\n      \
         columns: {{created: createdAt}}\n      user: {{columns: [email, role]}}\n{table}    claims: {{roles: role}}\n{issuer}",
        home.path("shop.db").display()
    )
}

#[tokio::test]
async fn a_session_is_accepted_with_what_its_row_and_its_user_say() {
    let world = World::start("", "").await;
    world.login("5f1c", "alice");
    let answer = world.verify("5f1c").await.unwrap();
    assert_eq!((answer.issuer.as_str(), answer.subject.as_str()), (ISSUER, "alice"));
    assert_eq!(answer.kind(), CredentialKind::AuthjsSession);
    assert_eq!((answer.audiences, answer.roles), (vec!["shop".to_owned()], vec!["admin".to_owned()]));
    assert_eq!(answer.expires_at.unwrap().seconds, START.after(30 * DAY).as_secs().cast_signed());
    assert_eq!((answer.refresh_after, answer.token_id.as_str()), (None, ""));
    let claims: Value = serde_json::from_slice(&answer.claims_json).unwrap();
    let session = &answer.session_id;
    assert_eq!((session.len(), session.contains("5f1c")), (64, false), "no id shows a token");
    let told = json!({
        "iss": ISSUER, "sub": "alice", "aud": ["shop"], "sid": session, "exp": START.after(30 * DAY).as_secs(),
        "auth_time": START.as_secs(), "email": "alice@example.com", "role": "admin",
    });
    assert_eq!(claims, told);
    // A user without these.
    world.login("b0b", "bob");
    assert_eq!(world.verify("b0b").await.unwrap().roles, Vec::<String>::new());
    for nobody in ["5F1C", "", "x", "5f1c "] {
        assert!(world.verify(nobody).await.is_err());
    }
    assert_denied(world.verify("none").await, "SESSION_ENDED", "REAUTHENTICATE");
}

#[tokio::test]
async fn what_the_application_deletes_is_refused_within_the_bound_and_at_once_when_fully_consistent() {
    let world = World::start("", "    staleness_bound: 10s\n").await;
    world.login("t1", "alice");
    world.verify("t1").await.unwrap();
    world.sql(r#"DELETE FROM "Session""#);
    world.pass(Duration::from_secs(9)).await;
    let answer = world.verify("t1").await.unwrap();
    assert!(answer.staleness.unwrap().seconds >= 9, "it says how old it is: {:?}", answer.staleness);
    assert_denied(world.sidecar.verify_consistently("t1").await, "SESSION_ENDED", "REAUTHENTICATE");
    assert_denied(world.verify("t1").await, "SESSION_ENDED", "REAUTHENTICATE");

    world.login("t2", "alice");
    world.verify("t2").await.unwrap();
    world.sql(r#"DELETE FROM "User" WHERE "id" = 'alice'"#);
    world.sql(r#"DELETE FROM "Session" WHERE "userId" = 'alice'"#);
    world.pass(Duration::from_secs(11)).await;
    assert_denied(world.verify("t2").await, "SESSION_ENDED", "REAUTHENTICATE");
}

#[tokio::test]
async fn its_end_moves_with_use_at_most_once_a_period() {
    let world = World::start("", "").await;
    world.login("t1", "alice");
    world.pass(DAY - Duration::from_secs(1)).await;
    world.verify("t1").await.unwrap();
    assert_eq!(world.expires("t1"), Some(30), "not yet due");
    world.pass(Duration::from_secs(1)).await;
    let answer = world.verify("t1").await.unwrap();
    assert_eq!(world.expires("t1"), Some(31));
    assert_eq!(answer.expires_at.unwrap().seconds, START.after(31 * DAY).as_secs().cast_signed());
    // Whatever else is written there meanwhile is left alone.
    world
        .sql(&format!(r#"UPDATE "Session" SET "expires" = {}"#, START.after(30 * DAY + DAY / 2).as_millis()));
    world.pass(Duration::from_secs(60)).await;
    world.verify("t1").await.unwrap();
    assert_eq!(world.expires("t1"), Some(30));
    // Unused to its end it is over.
    world.pass(30 * DAY).await;
    assert_denied(world.verify("t1").await, "SESSION_IDLE", "REAUTHENTICATE");
    assert_eq!(world.expires("t1"), Some(30), "and what is over is not extended");
}

#[tokio::test]
async fn limits_that_the_application_lacks_hold_on_its_rows() {
    let world = World::start("      idle: 1h\n      absolute: 10h\n", "").await;
    world.login("t1", "alice");
    for _ in 0..10 {
        world.verify("t1").await.unwrap();
        world.pass(Duration::from_secs(3540)).await;
    }
    world.verify("t1").await.unwrap();
    world.pass(Duration::from_secs(600)).await;
    assert_denied(world.verify("t1").await, "SESSION_ENDED", "REAUTHENTICATE");
    world.login("t2", "alice");
    world.verify("t2").await.unwrap();
    world.pass(Duration::from_secs(3600)).await;
    assert_denied(world.verify("t2").await, "SESSION_IDLE", "REAUTHENTICATE");
    assert!(world.expires("t2").is_some(), "a purge deletes it, not the one who asks");
}

#[tokio::test]
async fn with_one_login_more_than_may_be_the_oldest_is_ended_for_the_application_too() {
    let world = World::start("      max_sessions: 2\n", "").await;
    for token in ["t1", "t2", "t3"] {
        world.login(token, "alice");
        world.verify(token).await.unwrap();
        world.pass(Duration::from_secs(60)).await;
    }
    assert_denied(world.verify("t1").await, "SESSION_ENDED", "REAUTHENTICATE");
    assert_eq!(world.expires("t1"), None);
    for token in ["t2", "t3"] {
        world.verify(token).await.unwrap();
    }
    world.login("b1", "bob");
    world.verify("b1").await.unwrap();
}

#[tokio::test]
async fn its_holder_logs_out_here_and_at_the_application() {
    let world = World::start("", "").await;
    world.login("t1", "alice");
    world.login("t2", "alice");
    world.verify("t1").await.unwrap();
    world.verify("t2").await.unwrap();
    let request = RevokeRequest { target: Some(Target::Token("t1".to_owned())), reason: String::new() };
    for _ in 0..2 {
        world.sidecar.tokens().revoke(request.clone()).await.unwrap();
        assert_eq!(world.expires("t1"), None);
        assert_denied(world.verify("t1").await, "REVOKED", "REAUTHENTICATE");
    }
    // Put back by a backup, it stays revoked.
    world.login("t1", "alice");
    assert_denied(world.sidecar.verify_consistently("t1").await, "REVOKED", "REAUTHENTICATE");
    world.verify("t2").await.unwrap();
}

#[tokio::test]
async fn a_subject_is_signed_out_everywhere_but_here_and_may_log_in_again() {
    let world = World::start("", "").await;
    for token in ["t1", "t2", "t3"] {
        world.login(token, "alice");
        world.verify(token).await.unwrap();
    }
    world.login("b1", "bob");
    let stays = world.verify("t2").await.unwrap().session_id;
    let target = |except: Option<String>| {
        Target::Subject(SubjectRevocation {
            issuer: Some(ISSUER.to_owned()),
            subject: "alice".to_owned(),
            except_session_id: except,
            ..SubjectRevocation::default()
        })
    };
    let revoked = world.sidecar.revoke(target(Some(stays))).await.unwrap();
    assert!(revoked.revision.ends_with(".2"), "one entry for each session: {}", revoked.revision);
    for token in ["t1", "t3"] {
        assert_denied(world.verify(token).await, "REVOKED", "REAUTHENTICATE");
        assert_eq!(world.expires(token), None);
    }
    world.verify("t2").await.unwrap();
    world.verify("b1").await.unwrap();
    // In the same millisecond.
    world.sidecar.revoke(target(None)).await.unwrap();
    world.login("t4", "alice");
    world.verify("t4").await.unwrap();
    assert_denied(world.verify("t2").await, "REVOKED", "REAUTHENTICATE");
    let before = SubjectRevocation {
        before: Some(prost_types::Timestamp::default()),
        ..match target(None) {
            Target::Subject(subject) => subject,
            _ => unreachable!(),
        }
    };
    let refused = world.sidecar.revoke(Target::Subject(before)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

/// More than are listed at once: each is denied before it is deleted, and who calls again goes on where it stopped.
#[tokio::test]
async fn a_subject_with_thousands_of_sessions_is_signed_out_of_all() {
    let world = World::start("", "").await;
    let now = world.hands.wall();
    world.sql(&format!(
        r#"WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 2300)
           INSERT INTO "Session" SELECT 'a' || n, 'alice', {}, {} FROM up"#,
        now.after(30 * DAY).as_millis(),
        now.as_millis()
    ));
    world.login("b1", "bob");
    for token in ["a1", "a2300", "b1"] {
        world.verify(token).await.unwrap();
    }
    let subject = SubjectRevocation {
        issuer: Some(ISSUER.to_owned()),
        subject: "alice".to_owned(),
        ..SubjectRevocation::default()
    };
    // A slow machine may need several calls; one that fails undoes nothing.
    crate::support::eventually("all are ended", || async {
        world.sidecar.revoke(Target::Subject(subject.clone())).await.is_ok()
    })
    .await;
    for token in ["a1", "a999", "a1000", "a1001", "a2300"] {
        assert_eq!(world.expires(token), None, "{token}");
        assert_denied(world.verify(token).await, "REVOKED", "REAUTHENTICATE");
    }
    world.verify("b1").await.unwrap();
}

#[tokio::test]
async fn a_session_and_a_whole_table_are_ended_by_name() {
    let world = World::start("", "").await;
    for token in ["t1", "t2"] {
        world.login(token, "alice");
    }
    let session_id = world.verify("t1").await.unwrap().session_id;
    world.verify("t2").await.unwrap();
    let issuer = Some(ISSUER.to_owned());
    world.sidecar.revoke(Target::Session(SessionRevocation { issuer, session_id })).await.unwrap();
    assert_denied(world.verify("t1").await, "REVOKED", "REAUTHENTICATE");
    assert_eq!((world.expires("t1"), world.expires("t2")), (None, Some(30)));
    let all = IssuerRevocation { issuer: ISSUER.to_owned(), ..IssuerRevocation::default() };
    world.sidecar.revoke(Target::Issuer(all)).await.unwrap();
    assert!(world.verify("t2").await.is_err());
    assert_eq!(world.expires("t2"), None);
    world.pass(Duration::from_secs(1)).await;
    world.login("t3", "alice");
    world.verify("t3").await.unwrap();
}

#[tokio::test]
async fn a_table_that_tells_no_logins_is_ended_whole_without_a_cut_off() {
    let home = Home::new();
    Connection::open(home.path("shop.db")).unwrap().execute_batch(TABLES).unwrap();
    let text = section(&home, "", "").replace("      columns: {created: createdAt}\n", "");
    let (sidecar, hands) = home.start_at(&text).await;
    let world = World { sidecar, hands, home };
    world.login("t1", "alice");
    world.verify("t1").await.unwrap();
    let all =
        || Target::Issuer(IssuerRevocation { issuer: ISSUER.to_owned(), ..IssuerRevocation::default() });
    world.sidecar.revoke(all()).await.unwrap();
    assert_denied(world.verify("t1").await, "SESSION_ENDED", "REAUTHENTICATE");
    world.login("t2", "alice");
    world.verify("t2").await.unwrap();
    let request = as_caller(RevokeRequest {
        target: Some(Target::Subject(SubjectRevocation {
            issuer: Some(ISSUER.to_owned()),
            subject: "alice".to_owned(),
            ..SubjectRevocation::default()
        })),
        reason: String::new(),
    });
    world.sidecar.tokens().revoke(request).await.unwrap();
    assert_denied(world.verify("t2").await, "REVOKED", "REAUTHENTICATE");
    world.login("t3", "alice");
    world.verify("t3").await.unwrap();
}

#[tokio::test]
async fn a_token_is_good_under_its_cookie_s_name_or_none() {
    let world = World::start("", "").await;
    world.login("t1", "alice");
    let named = |name: &str| VerifyRequest { credential_name: name.to_owned(), ..verify_request("t1") };
    for name in ["", COOKIE, "__Secure-next-auth.session-token", ""] {
        world.sidecar.verify_demanding(named(name)).await.unwrap();
    }
    for name in ["authjs.session-token", "session"] {
        assert_denied(world.sidecar.verify_demanding(named(name)).await, "UNKNOWN_ISSUER", "NONE");
    }
    let header =
        |cookies: &str| VerifyRequest { cookie_header: Some(cookies.to_owned()), ..VerifyRequest::default() };
    world.sidecar.verify_demanding(header(&format!("a=b; {COOKIE}=t1; c=d"))).await.unwrap();
    assert!(world.sidecar.verify_demanding(header("authjs.session-token=t1")).await.is_err());
}

#[tokio::test]
async fn a_table_out_of_reach_says_nothing_about_a_session_and_loses_none() {
    let world = World::start("", "").await;
    world.login("t1", "alice");
    world.verify("t1").await.unwrap();
    let (file, away) = (world.home.path("shop.db"), world.home.path("away.db"));
    std::fs::rename(&file, &away).unwrap();
    world.verify("t1").await.unwrap();
    let unavailable = |result| assert_refused(result, Code::Unavailable, "STORE_UNAVAILABLE", "NONE");
    unavailable(world.sidecar.verify_consistently("t1").await);
    unavailable(world.verify("other").await);
    world.pass(Duration::from_secs(31)).await;
    unavailable(world.verify("t1").await);
    let request = RevokeRequest { target: Some(Target::Token("t1".to_owned())), reason: String::new() };
    let revoked = world.sidecar.tokens().revoke(request).await.map(|_| world.verify("t1"));
    assert_refused(revoked.map(drop), Code::Unavailable, "STORE_UNAVAILABLE", "NONE");
    std::fs::rename(&away, &file).unwrap();
    world.verify("t1").await.unwrap();
    // A table that became another is told in the log, and is nobody's fault who asks.
    world.sql(r#"ALTER TABLE "Session" RENAME COLUMN "expires" TO "ends""#);
    unavailable(world.sidecar.verify_consistently("t1").await);
    world.sql(r#"ALTER TABLE "Session" RENAME COLUMN "ends" TO "expires""#);
    world.sidecar.verify_consistently("t1").await.unwrap();
}

#[tokio::test]
async fn other_credentials_are_not_looked_for_in_the_table() {
    let world = World::start("", "").await;
    // As names of rows, too.
    let session = world.sidecar.login("carol", "medium").await;
    let tokens = session.tokens.unwrap();
    for token in [&tokens.access_token, &tokens.refresh_token] {
        world.login(token, "alice");
    }
    assert_eq!(world.verify(&tokens.access_token).await.unwrap().issuer, OWN_ISSUER);
    assert_denied(world.verify(&tokens.refresh_token).await, "UNSUPPORTED_TYPE", "NONE");
    assert_denied(world.sidecar.refresh("t1").await, "MALFORMED", "NONE");
}

/// The application deleted it just before: what is in memory here has to go all the same.
#[tokio::test]
async fn what_is_taken_back_is_refused_at_once_also_where_its_row_is_gone_already() {
    let world = World::start("", "").await;
    for token in ["t1", "t2"] {
        world.login(token, "alice");
    }
    let named = VerifyRequest { credential_name: COOKIE.to_owned(), ..verify_request("t1") };
    world.sidecar.verify_demanding(named).await.unwrap();
    world.verify("t2").await.unwrap();
    world.sql(r#"DELETE FROM "Session""#);
    let request = RevokeRequest { target: Some(Target::Token("t1".to_owned())), reason: String::new() };
    world.sidecar.tokens().revoke(request).await.unwrap();
    assert_denied(world.verify("t1").await, "REVOKED", "REAUTHENTICATE");
    let subject = SubjectRevocation {
        issuer: Some(ISSUER.to_owned()),
        subject: "alice".to_owned(),
        ..SubjectRevocation::default()
    };
    world.sidecar.revoke(Target::Subject(subject)).await.unwrap();
    assert_denied(world.verify("t2").await, "SESSION_ENDED", "REAUTHENTICATE");
    // What nobody here has seen writes nothing.
    let request = RevokeRequest { target: Some(Target::Token("junk".to_owned())), reason: String::new() };
    let revision = world.sidecar.tokens().revoke(request).await.unwrap().into_inner().revision;
    assert!(revision.ends_with(".1"), "{revision}");
}

#[tokio::test]
async fn two_sidecars_hear_of_a_sign_out_at_once() {
    let world = World::start("", "").await;
    world.login("t1", "alice");
    let sections = format!("api: {{tcp: 127.0.0.1:0}}\n{}", section(&world.home, "", ""));
    let (other, _hands) = world.home.start_at(&sections).await;
    other.verify("t1").await.unwrap();
    world
        .sidecar
        .tokens()
        .revoke(RevokeRequest { target: Some(Target::Token("t1".to_owned())), reason: String::new() })
        .await
        .unwrap();
    crate::support::eventually("the other refuses it", || async { other.verify("t1").await.is_err() }).await;
    assert_denied(other.verify("t1").await, "REVOKED", "REAUTHENTICATE");
}
