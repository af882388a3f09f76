//! The revocation log, between our types and what the scripts take and give.

use super::reply::{Arguments, Reply, hexadecimal, instant};
use crate::clock::Timestamp;
use crate::revocation::entry::expiry_from_secs;
use crate::revocation::{Appended, DenialKey, Draft, Entry, EntryKind, Page, StoreError};
use crate::token::Revision;
use std::time::Duration;

/// Entries to one script: what is given back must not hold up everybody's calls.
pub(super) const BATCH: usize = 500;

const SESSION: u8 = 2;

/// The last entry that a page held: a log that holds another one there is an older copy that was written on.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    /// Where that page ended.
    cursor: Revision,
    seq: u64,
    content: Vec<u8>,
}

/// One draft for the append script.
pub(super) fn draft(draft: &Draft) -> Arguments {
    let rounded = |expires_at: Timestamp, key: DenialKey| {
        u64::from(Entry { kind: EntryKind::Token, key, expires_at }.expiry_secs())
    };
    let begin = |kind: u8, key: DenialKey| Arguments::default().number(u64::from(kind)).key(key);
    match *draft {
        Draft::Token { key, expires_at } => {
            begin(1, key).nothing().nothing().number(rounded(expires_at, key)).nothing()
        }
        Draft::Session { key, expires_at } => {
            begin(SESSION, key).nothing().nothing().number(rounded(expires_at, key)).nothing()
        }
        Draft::Subject { key, except, before, longest, .. } => {
            cut_off(optional_key(begin(3, key), except), before, longest)
        }
        Draft::Issuer { key, before, longest, .. } => cut_off(begin(4, key).nothing(), before, longest),
    }
}

/// The sidecar's clock, where the draft comes with it.
pub(super) fn draft_now(draft: &Draft) -> Timestamp {
    match *draft {
        Draft::Token { .. } | Draft::Session { .. } => Timestamp::default(),
        Draft::Subject { now, .. } | Draft::Issuer { now, .. } => now,
    }
}

pub(super) fn appended(mut reply: Reply, draft: &Draft) -> Result<Appended, StoreError> {
    let revision = reply.revision()?;
    let cutoff = reply.at()?;
    let expires_at = expiry(&mut reply)?;
    let (key, kind) = match *draft {
        Draft::Token { key, .. } => (key, EntryKind::Token),
        Draft::Session { key, .. } => (key, EntryKind::Session),
        Draft::Subject { key, except, .. } => (key, EntryKind::SubjectBefore { cutoff, except }),
        Draft::Issuer { key, .. } => (key, EntryKind::IssuerBefore { cutoff }),
    };
    Ok(Appended { entry: Entry { kind, key, expires_at }, revision })
}

/// Entries for the restore script.
pub(super) fn entries(entries: &[Entry]) -> Arguments {
    entries.iter().fold(Arguments::default(), |arguments, entry| {
        let (kind, except, at) = match entry.kind {
            EntryKind::Token => (1, None, 0),
            EntryKind::Session => (u64::from(SESSION), None, 0),
            EntryKind::SubjectBefore { cutoff, except } => (3, except, cutoff.as_millis()),
            EntryKind::IssuerBefore { cutoff } => (4, None, cutoff.as_millis()),
            EntryKind::ClaimsBefore { version } => (5, None, version),
        };
        let arguments = optional_key(arguments.number(kind).key(entry.key), except);
        arguments.number(at).number(u64::from(entry.expiry_secs()))
    })
}

/// For the read script: where to go on, and what was there.
pub(super) fn read(cursor: Option<Revision>, limit: usize, anchor: Option<&Anchor>) -> Arguments {
    let arguments = match cursor {
        Some(Revision { epoch, seq }) => Arguments::default().text(&hexadecimal(epoch)).number(seq),
        None => Arguments::default().nothing().nothing(),
    };
    let arguments = arguments.number(u64::try_from(limit).unwrap_or(u64::MAX));
    match anchor.filter(|anchor| Some(anchor.cursor) == cursor) {
        Some(anchor) => arguments.number(anchor.seq).bytes(&anchor.content),
        None => arguments.nothing().nothing(),
    }
}

/// A page, and the anchor for the read after it.
pub(super) fn page(
    mut reply: Reply,
    limit: usize,
    anchor: Option<Anchor>,
) -> Result<(Page, Option<Anchor>), StoreError> {
    let head = reply.revision()?;
    let (born, now) = (reply.number()?, reply.at()?);
    let restarted = reply.number()? != 0;
    let mut end = reply.number()?;
    let mut last = None;
    let mut entries = Vec::new();
    for item in reply.array("the log")?.arrays() {
        let (seq, entry, content) = read_item(item?)?;
        entries.push(entry);
        end = seq;
        last = Some((seq, content));
    }
    // Fewer than asked for: whatever lay between the last one and the head is purged.
    let seq = if entries.len() < limit { head.seq } else { end };
    let cursor = Revision { epoch: head.epoch, seq };
    let epoch_age = if born == 0 { Duration::MAX } else { now.since(instant(born)) };
    let anchor = match last {
        Some((seq, content)) => Some(Anchor { cursor, seq, content }),
        // Nothing new: what was there before still counts.
        None => anchor
            .filter(|anchor| !restarted && anchor.cursor.epoch == head.epoch)
            .map(|anchor| Anchor { cursor, ..anchor }),
    };
    Ok((Page { entries, cursor, head, epoch_age, restarted }, anchor))
}

pub(super) fn expiry(reply: &mut Reply) -> Result<Timestamp, StoreError> {
    let seconds = u32::try_from(reply.number()?).map_err(|_| reply.odd())?;
    Ok(expiry_from_secs(seconds))
}

/// A stream's entry: its number, what it says, and its content as the read script compares it.
fn read_item(mut item: Reply) -> Result<(u64, Entry, Vec<u8>), StoreError> {
    let id = item.text()?;
    let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok()).ok_or_else(|| item.odd())?;
    let mut fields = item.array("an entry of the log")?;
    let mut values = Vec::new();
    while fields.left() > 0 {
        let _name = fields.bytes()?;
        values.push(fields.bytes()?);
    }
    let [kind, key, except, at, expires] = values.as_slice() else { return Err(fields.odd()) };
    let content = [kind.as_slice(), key, except, b":", at, b":", expires].concat();
    let odd = || StoreError::Corrupt("an entry of the log");
    let raw = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(DenialKey::from_bytes).map_err(|_| odd());
    let number = |bytes: &[u8]| {
        std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(odd)
    };
    let at = number(at)?;
    let cutoff = instant(at);
    let kind = match kind.as_slice() {
        b"1" => EntryKind::Token,
        b"2" => EntryKind::Session,
        b"3" if except.is_empty() => EntryKind::SubjectBefore { cutoff, except: None },
        b"3" => EntryKind::SubjectBefore { cutoff, except: Some(raw(except)?) },
        b"4" => EntryKind::IssuerBefore { cutoff },
        b"5" => EntryKind::ClaimsBefore { version: at },
        _ => return Err(odd()),
    };
    let expires = u32::try_from(number(expires)?).map_err(|_| odd())?;
    Ok((seq, Entry { kind, key: raw(key)?, expires_at: expiry_from_secs(expires) }, content))
}

fn cut_off(arguments: Arguments, before: Option<Timestamp>, longest: Duration) -> Arguments {
    let arguments = match before {
        Some(before) => arguments.at(before),
        None => arguments.nothing(),
    };
    arguments.nothing().span(longest)
}

fn optional_key(arguments: Arguments, key: Option<DenialKey>) -> Arguments {
    match key {
        Some(key) => arguments.key(key),
        None => arguments.nothing(),
    }
}
