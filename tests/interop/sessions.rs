//! Auth.js' strategy `database`: the real `@auth/core` and `@auth/pg-adapter` over a real Postgres log people in and out,
//! and so does a sidecar, on the same rows.

use crate::engines::Postgres;
use crate::peer::{Peer, node};
use crate::support::{Home, Sidecar, assert_denied};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{CredentialKind, SubjectRevocation};
use serde_json::{Value, json};

struct World {
    application: Peer,
    sidecar: Sidecar,
    postgres: Postgres,
    _home: Home,
}

impl World {
    async fn start() -> Option<Self> {
        let place = node()?;
        let postgres = Postgres::start();
        let mut application = Peer::node(&place, "sessions.mjs");
        let connection = json!({
            "host": "127.0.0.1", "port": postgres.port(), "user": "countersign", "password": postgres.password(),
            "database": "postgres",
        });
        application.ask(&json!({"ask": "open", "connection": connection})).unwrap();
        let home = Home::new();
        let sidecar = home
            .start(&format!(
                "issuers:\n  - issuer: shop-web\n    audiences: [orders]\n    session_table:\n      url: {}\n      \
                 password_file: {}\n      table: sessions\n      \
                 user: {{table: users, columns: [email]}}\n      cookies: authjs.session-token\n",
                postgres.url(),
                postgres.password_file().display()
            ))
            .await;
        Some(Self { application, sidecar, postgres, _home: home })
    }

    fn login(&mut self, email: &str) -> String {
        let token = self.application.ask(&json!({"ask": "login", "email": email})).unwrap();
        token.as_str().unwrap().to_owned()
    }

    /// What the application itself makes of a session.
    fn session(&mut self, token: &str) -> Value {
        self.application.ask(&json!({"ask": "session", "token": token})).unwrap()
    }

    fn days_left(&self) -> String {
        self.postgres.sql(
            "SELECT round(extract(epoch FROM expires - now()) / 86400, 2)::float8 FROM sessions ORDER BY id LIMIT 1",
        )
    }
}

#[tokio::test]
async fn its_logins_are_accepted_and_its_logouts_refused() {
    let Some(mut world) = World::start().await else { return };
    let token = world.login("alice@example.com");
    let answer = world.sidecar.verify(&token).await.unwrap();
    assert_eq!((answer.kind(), answer.subject.as_str()), (CredentialKind::AuthjsSession, "1"));
    let claims: Value = serde_json::from_slice(&answer.claims_json).unwrap();
    assert_eq!(claims["email"], "alice@example.com");
    assert_eq!(world.session(&token)["user"], "1");
    world.application.ask(&json!({"ask": "logout", "token": token})).unwrap();
    assert_denied(world.sidecar.verify_consistently(&token).await, "SESSION_ENDED", "REAUTHENTICATE");
}

#[tokio::test]
async fn who_is_logged_out_here_is_logged_out_there() {
    let Some(mut world) = World::start().await else { return };
    let tokens = [(); 3].map(|()| world.login("alice@example.com"));
    let other = world.login("bob@example.com");
    world.sidecar.revoke(Target::Token(tokens[0].clone())).await.unwrap();
    assert_eq!(world.session(&tokens[0]), Value::Null);
    assert_eq!(world.session(&tokens[1])["user"], "1");
    let everywhere = SubjectRevocation {
        issuer: Some("shop-web".to_owned()),
        subject: "1".to_owned(),
        ..SubjectRevocation::default()
    };
    world.sidecar.revoke(Target::Subject(everywhere)).await.unwrap();
    for token in &tokens {
        assert_eq!(world.session(token), Value::Null);
        assert_denied(world.sidecar.verify(token).await, "REVOKED", "REAUTHENTICATE");
    }
    assert_eq!(world.session(&other)["user"], "2");
    let again = world.login("alice@example.com");
    world.sidecar.verify(&again).await.unwrap();
}

#[tokio::test]
async fn either_moves_a_session_s_end_once_and_the_other_sees_it() {
    let Some(mut world) = World::start().await else { return };
    let token = world.login("alice@example.com");
    assert_eq!(world.days_left(), "30");
    let used = |days: &str| format!("UPDATE sessions SET expires = now() + interval '{days} days'");
    let _done = world.postgres.sql(&used("28.5"));
    world.sidecar.verify(&token).await.unwrap();
    assert_eq!(world.days_left(), "30", "moved here");
    world.session(&token);
    let _done = world.postgres.sql(&used("28.5"));
    world.session(&token);
    assert_eq!(world.days_left(), "30", "moved there");
    let answer = world.sidecar.verify_consistently(&token).await.unwrap();
    let left = answer.expires_at.unwrap().seconds
        - countersign::clock::Clock::system().now().judged.as_secs().cast_signed();
    assert!((30 * 86_400 - 60..=30 * 86_400).contains(&left), "{left}");
    let _done = world.postgres.sql(&used("29.5"));
    world.sidecar.verify_consistently(&token).await.unwrap();
    world.session(&token);
    assert_eq!(world.days_left(), "29.5", "not due for either");
}
