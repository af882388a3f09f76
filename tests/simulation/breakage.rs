//! Ways in which the simulated world can be wrong on purpose, to show that the checker sees them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// Everything as it should be.
    None,
    /// A page leaves an entry out.
    SkipsEntries,
    /// One append in four is acknowledged and not written.
    AcknowledgesUnwritten,
    /// A failover goes on in the epoch of what it lost.
    SameEpochAfterFailover,
    /// The store never says that its epoch is young, and sidecars don't wait for one another.
    NeverYoung,
    /// What sidecars give back is acknowledged and thrown away.
    DropsWhatIsGivenBack,
    /// Cut-offs and logins are stamped by whoever calls.
    CallersStamp,
    /// A revocation leaves the session's record as it was.
    RevokedKeepTheirRecord,
    /// A retried refresh token counts as stolen.
    NoGrace,
    /// A stolen refresh token counts as retried.
    EndlessGrace,
    /// The last step does not ask how fresh the denylist is.
    IgnoresStaleness,
    /// Fully consistent answers from memory.
    NeverAsksTheStore,
}
