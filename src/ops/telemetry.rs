//! Logs: to standard error, for people or as JSON, with a level that can be changed while running.
//!
//! Our own code never hands a secret to a log. Libraries are another matter at their deepest levels, so however
//! the level is set, they speak no deeper than `info`, or `debug` where an operator names one.

use std::fmt::{Debug, Write};
use std::io::{IsTerminal, stderr};
use tracing::Dispatch;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

const OURS: &str = "countersign";

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up or its level not changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// A part of the level is neither a level nor `target=level`.
    #[error("{0:?} is neither a level (off, error, warn, info, debug, trace) nor target=level")]
    Level(String),
    /// Logging was set up before in this process.
    #[error("logging was set up before")]
    AlreadySet,
    /// The subscriber is gone.
    #[error("logging has ended")]
    Gone,
}

/// Changes the log level while running.
#[derive(Clone, Debug)]
pub struct Handle(reload::Handle<Targets, Registry>);

impl Handle {
    /// Sets the level, as [`init`] reads it. On an error the old one stays.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] when it can't be read, [`TelemetryError::Gone`] when nothing logs any more.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let targets = parse(level)?;
        self.0.reload(targets).map_err(|_| TelemetryError::Gone)
    }
}

/// Makes this the process's logging. `level` is one level for our own code, and `target=level` for what differs,
/// separated by commas: `info`, `debug,hyper=off`, `warn,countersign::revocation=trace`.
///
/// # Errors
/// [`TelemetryError::Level`] when the level can't be read, [`TelemetryError::AlreadySet`] on a second call.
pub fn init(format: Format, level: &str) -> Result<Handle, TelemetryError> {
    let (dispatch, handle) = build(format, level, stderr, stderr().is_terminal())?;
    dispatch.try_init().map_err(|_| TelemetryError::AlreadySet)?;
    Ok(handle)
}

fn build<W>(format: Format, level: &str, to: W, coloured: bool) -> Result<(Dispatch, Handle), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = fmt::layer().with_writer(to).with_ansi(coloured && format == Format::Human);
    let lines = match format {
        Format::Human => lines.fmt_fields(debug_fn(write_field).delimited(" ")).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok((Dispatch::new(tracing_subscriber::registry().with(filter).with(lines)), Handle(handle)))
}

/// Stricter than the library's reading, which takes a mistyped level for a target and falls silent.
fn parse(text: &str) -> Result<Targets, TelemetryError> {
    let mut general = LevelFilter::INFO;
    let mut named = Vec::new();
    for part in text.split(',').map(str::trim) {
        let wrong = || TelemetryError::Level(part.to_owned());
        match part.split_once('=') {
            None => general = level(part).ok_or_else(wrong)?,
            Some((target, text)) => {
                let target = target.trim();
                if target.is_empty() {
                    return Err(wrong());
                }
                let deepest = deepest(target);
                named.push((target, level(text.trim()).ok_or_else(wrong)?.min(deepest)));
            }
        }
    }
    let others = general.min(LevelFilter::INFO);
    // A target that is its beginning must not take it along.
    let quiet =
        Targets::new().with_default(others).with_target(OURS, general).with_target("tokio_postgres", others);
    Ok(quiet.with_targets(named))
}

/// Writes one field of a line for people, with control characters escaped: a value of a caller's must neither begin
/// a line of its own nor speak to the reader's terminal. JSON does that by itself.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaping(writer), "{value:?}")
}

struct Escaping<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.chars().try_for_each(|c| {
            if c.is_control() { write!(self.0, "{}", c.escape_default()) } else { self.0.write_char(c) }
        })
    }
}

/// What others log is not ours to redact: tokio-postgres tells at debug the values that a statement is given.
fn deepest(target: &str) -> LevelFilter {
    if is_ours(target) {
        LevelFilter::TRACE
    } else if target.starts_with("tokio_postgres") {
        LevelFilter::INFO
    } else {
        LevelFilter::DEBUG
    }
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn level(text: &str) -> Option<LevelFilter> {
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    levels.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, level)| level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;
    use tracing::dispatcher::with_default;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logging(format: Format, level: &str) -> (Dispatch, Handle, Page) {
        let page = Page::default();
        let to = page.clone();
        let (dispatch, handle) = build(format, level, move || to.clone(), false).expect("a level");
        (dispatch, handle, page)
    }

    fn lines(page: &Page) -> Vec<String> {
        let bytes = std::mem::take(&mut *page.0.lock());
        String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    fn speak() {
        tracing::info!(target: "countersign::verify", answer = 42, "ours at info");
        tracing::trace!(target: "countersign::verify", "ours at trace");
        tracing::info!(target: "h2", "theirs at info");
        tracing::debug!(target: "h2", "theirs at debug");
        tracing::trace!(target: "h2", "theirs at trace");
    }

    fn spoken(level: &str) -> usize {
        let (dispatch, _handle, page) = logging(Format::Human, level);
        with_default(&dispatch, speak);
        lines(&page).len()
    }

    #[test]
    fn a_json_line_is_an_object_with_its_fields_on_top() {
        let (dispatch, _handle, page) = logging(Format::Json, "info");
        with_default(&dispatch, speak);
        let first: serde_json::Value = serde_json::from_str(&lines(&page)[0]).expect("JSON");
        assert_eq!(first["message"], "ours at info");
        assert_eq!(first["answer"], 42);
        assert_eq!(first["level"], "INFO");
    }

    #[test]
    fn libraries_stay_shallow_however_deep_we_log() {
        assert_eq!(spoken("trace"), 3, "both of ours and their info");
        assert_eq!(spoken("warn,h2=trace"), 2, "their info and debug");
        assert_eq!(spoken("trace,h2=off"), 2, "both of ours");
        assert_eq!(spoken("off"), 0);
    }

    #[test]
    fn the_level_changes_at_run_time() {
        let (dispatch, handle, page) = logging(Format::Human, "off");
        with_default(&dispatch, speak);
        assert!(lines(&page).is_empty());
        // Within, as `init`'s subscriber is everywhere: a change reaches the subscribers that are in force.
        with_default(&dispatch, || {
            handle.set_level("trace").expect("a level");
            speak();
        });
        assert_eq!(lines(&page).len(), 3);
    }

    #[test]
    fn a_mistyped_level_is_an_error_and_changes_nothing() {
        let (dispatch, handle, page) = logging(Format::Human, "trace");
        for wrong in ["wran", "", "info,", "h2=loud", "=info", "countersign"] {
            assert!(matches!(handle.set_level(wrong), Err(TelemetryError::Level(_))), "{wrong:?}");
        }
        with_default(&dispatch, speak);
        assert_eq!(lines(&page).len(), 3);
    }

    #[test]
    fn a_target_that_only_begins_like_ours_is_not_ours() {
        assert!(is_ours("countersign") && is_ours("countersign::verify"));
        assert!(!is_ours("countersign_spy"));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let (dispatch, _handle, page) = logging(Format::Human, "info");
        let name = "\x1b[2J\x1b]0;owned\x07\u{9b}\nforged line";
        with_default(&dispatch, || tracing::info!(name = %name, "called {name}"));
        let lines = lines(&page);
        assert_eq!(lines.len(), 1);
        assert!(!lines.concat().contains(char::is_control), "{lines:?}");
        assert!(lines.concat().contains("name="), "{lines:?}");
    }

    #[test]
    fn fields_stand_beside_the_message() {
        let (dispatch, _handle, page) = logging(Format::Human, "info");
        with_default(&dispatch, speak);
        assert!(lines(&page)[0].ends_with("INFO countersign::verify: ours at info answer=42"));
    }
}
