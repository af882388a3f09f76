//! The scenes, each a short story about one thing that sessions have to be able to do.

use crate::Failure;
use crate::client::Client;
use crate::shop::{Shop, answer};
use crate::table::{Answer, Expected, Table};
use crate::v1::{GrantRoleRequest, KickOutRequest, LogoutOthersRequest, PlaceOrderRequest};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Longer than the access token lives: 4 s in the sidecars' configuration.
const FORM: Duration = Duration::from_millis(5200);
/// Longer than the grace in which a refresh token may be repeated: 1 s in the sidecars' configuration.
const PAST_GRACE: Duration = Duration::from_millis(1300);

/// Each returns an error only where a scene can't go on; answers that are not the expected ones are the table's.
impl Shop {
    /// Nobody gets in without a password or a token.
    pub(crate) async fn login(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("login");
        let wrong = answer("user", Client::login(self.user(), "alice", "a guess", "laptop")).await;
        table.row("alice logs in with a wrong password", Expected::denied("WRONG_PASSWORD"), &wrong)?;
        self.log_in(table, "alice", "laptop").await?;
        let mut orders = self.order_service();
        let nobody = answer("order", orders.place_order(PlaceOrderRequest::default())).await;
        table.row("an order by nobody", Expected::denied("NO_TOKEN"), &nobody)?;
        Ok(())
    }

    /// Minimum latency: the signature is checked once, and then memory answers.
    pub(crate) async fn order(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("order");
        let alice = self.log_in(table, "alice", "laptop").await?;
        table.row("a token seen for the first time", Expected::Accepted, &self.orders(&alice).await)?;
        table.row("the same token again", Expected::Accepted, &self.orders(&alice).await)?;
        table.row("and again", Expected::Accepted, &self.orders(&alice).await)?;
        Ok(())
    }

    /// Full consistency: the store is asked on each call, and the scope is demanded of the token.
    pub(crate) async fn payment(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("payment");
        let alice = self.log_in(table, "alice", "laptop").await?;
        table.row("alice pays", Expected::Accepted, &self.pays(&alice).await)?;
        table.row("alice pays again", Expected::Accepted, &self.pays(&alice).await)?;
        let kim = self.log_in(table, "kim", "tablet").await?;
        table.row("kim, a child, orders", Expected::Accepted, &self.orders(&kim).await)?;
        let expected = Expected::Refused(Code::PermissionDenied, "INSUFFICIENT_SCOPE");
        table.row("kim, a child, pays", expected, &self.pays(&kim).await)?;
        Ok(())
    }

    /// Whoever is at work is not logged out because an access token is short-lived.
    pub(crate) async fn long_form(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("a long form");
        let alice = self.log_in(table, "alice", "laptop").await?;
        let when_opened = alice.access_token();
        let begun = Instant::now();
        tokio::time::sleep(FORM).await;
        let renewals = format!("renewed {} times meanwhile", alice.renewals());
        let said = if alice.renewals() > 0 { Ok(renewals) } else { Err(Status::unknown(renewals)) };
        let answer = Answer { service: "user", said, took: begun.elapsed() };
        table.row("alice fills it in; her client renews", Expected::Accepted, &answer)?;
        let stale = self.orders_with(&when_opened).await;
        table.row("submitted with the token it was opened with", Expected::denied("EXPIRED"), &stale)?;
        table.row("submitted by her client", Expected::Accepted, &self.orders(&alice).await)?;
        Ok(())
    }

    /// Authority that changed is in force at once, in tokens that were made before, too.
    pub(crate) async fn role_change(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("role change");
        let alice = self.log_in(table, "alice", "laptop").await?;
        let before = alice.access_token();
        let expected = Expected::Refused(Code::PermissionDenied, "ROLE_MISSING");
        table.row("alice asks for the sales report", expected, &self.reports(&alice).await)?;
        let root = self.log_in(table, "root", "desktop").await?;
        let grant = root.request(GrantRoleRequest { name: "alice".to_owned(), role: "staff".to_owned() })?;
        let granted = answer("user", self.user().grant_role(grant)).await;
        let since = Instant::now();
        table.row("root makes alice staff", Expected::Accepted, &granted)?;
        let refused = self.refused_with(&before, since).await;
        table.row("alice's old token: refused since", Expected::denied("STALE_CLAIMS"), &refused)?;
        if let Err(refusal) = &refused.said {
            let renewed = answer("user", alice.renew_if_told(refusal)).await;
            table.row("her client renews, as it is told to", Expected::Accepted, &renewed)?;
        }
        table.row("alice asks for the sales report", Expected::Accepted, &self.reports(&alice).await)?;
        Ok(())
    }

    /// The policy's limit: the second login ends the first one's session.
    pub(crate) async fn second_device(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("one device at a time");
        let phone = self.log_in(table, "carol", "phone").await?;
        table.row("carol orders on her phone", Expected::Accepted, &self.orders(&phone).await)?;
        let tablet = self.log_in(table, "carol", "tablet").await?;
        self.refused_everywhere(table, "the phone", &phone.access_token(), Instant::now()).await?;
        table.row("the tablet orders", Expected::Accepted, &self.orders(&tablet).await)?;
        table.row("the tablet pays", Expected::Accepted, &self.pays(&tablet).await)?;
        Ok(())
    }

    /// What one does after losing a phone; and the logout.
    pub(crate) async fn log_out_others(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("log out my other devices");
        let laptop = self.log_in(table, "alice", "laptop").await?;
        let phone = self.log_in(table, "alice", "phone").await?;
        table.row("alice orders on her phone", Expected::Accepted, &self.orders(&phone).await)?;
        let others = laptop.request(LogoutOthersRequest {})?;
        let ended = answer("user", self.user().logout_others(others)).await;
        let since = Instant::now();
        table.row("on her laptop: log out the others", Expected::Accepted, &ended)?;
        self.refused_everywhere(table, "the phone", &phone.access_token(), since).await?;
        table.row("the laptop orders", Expected::Accepted, &self.orders(&laptop).await)?;
        table.row("the laptop pays", Expected::Accepted, &self.pays(&laptop).await)?;
        let left = answer("user", laptop.logout()).await;
        table.row("the laptop logs out, too", Expected::Accepted, &left)?;
        let renewed = answer("user", laptop.renew()).await;
        table.row("the laptop renews", Expected::denied("REVOKED"), &renewed)?;
        Ok(())
    }

    /// A copy gives itself away: the session it belongs to ends for the thief and the victim alike.
    pub(crate) async fn stolen_refresh_token(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("a stolen refresh token");
        let alice = self.log_in(table, "alice", "laptop").await?;
        let stolen = alice.refresh_token();
        let begun = Instant::now();
        while alice.refresh_token() == stolen && begun.elapsed() < FORM {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(PAST_GRACE).await;
        let replayed = answer("user", self.renews_with(stolen)).await;
        let since = Instant::now();
        table.row("a thief renews with the one before", Expected::denied("REFRESH_REUSED"), &replayed)?;
        self.refused_everywhere(table, "alice", &alice.access_token(), since).await?;
        let renewed = answer("user", alice.renew()).await;
        table.row("alice's client renews: she has to log in", Expected::denied("REVOKED"), &renewed)?;
        Ok(())
    }

    /// A kick ends sessions; it is no ban.
    pub(crate) async fn kick(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("an administrator's kick");
        let alice = self.log_in(table, "alice", "laptop").await?;
        table.row("alice orders", Expected::Accepted, &self.orders(&alice).await)?;
        let root = self.log_in(table, "root", "desktop").await?;
        let kick = root.request(KickOutRequest { name: "alice".to_owned() })?;
        let kicked = answer("user", self.user().kick_out(kick)).await;
        let since = Instant::now();
        table.row("root kicks alice out", Expected::Accepted, &kicked)?;
        self.refused_everywhere(table, "alice", &alice.access_token(), since).await?;
        let again = self.log_in(table, "alice", "laptop").await?;
        table.row("logged in again, alice orders", Expected::Accepted, &self.orders(&again).await)?;
        Ok(())
    }

    /// The payment service's sidecar has been stopped.
    pub(crate) async fn sidecar_down(&self, table: &mut Table) -> Result<(), Failure> {
        table.scene("a sidecar is down");
        let alice = self.log_in(table, "alice", "laptop").await?;
        let expected = Expected::Refused(Code::Unavailable, "SIDECAR_UNREACHABLE");
        table.row("payment's; it can't tell, and lets nobody in", expected, &self.pays(&alice).await)?;
        table.row("order has its own", Expected::Accepted, &self.orders(&alice).await)?;
        Ok(())
    }
}
