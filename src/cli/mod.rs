//! The command line: what can be typed, and what comes back. Exit codes: 0 yes, 1 no, 2 usage or configuration,
//! 3 undecided.

mod check;
mod client;
pub mod dev;
mod health;
pub mod inspect;
pub mod json_members;
mod keys;
mod look;
mod migrate;
mod output;
mod serve;
mod sessions;
mod verify;

use clap::{Args, CommandFactory, Parser, Subcommand};
use output::Output;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

/// Yes.
pub(crate) const YES: u8 = 0;
/// No.
pub(crate) const NO: u8 = 1;
/// Usage or configuration.
pub(crate) const USAGE: u8 = 2;
/// Can't tell now.
pub(crate) const UNDECIDED: u8 = 3;

/// A gRPC token-verification sidecar: JWT speed, revocations in force at once.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 yes, 1 no, 2 usage or configuration, 3 undecided.

Try it: countersign serve --dev"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar.
    #[command(after_help = "\
Examples:
  countersign serve --dev
  countersign serve --config /etc/countersign/countersign.yaml
  COUNTERSIGN_LOG__LEVEL=debug countersign serve --config countersign.yaml
  countersign serve --config countersign.yaml --set api.tcp=127.0.0.1:50052")]
    Serve(ServeArgs),
    /// Read the configuration as `serve` would and tell every fault at once.
    #[command(after_help = "\
Examples:
  countersign check --config countersign.yaml
  countersign check --reference > configuration.md")]
    Check(CheckArgs),
    /// Create the store's namespace, or bring it to this release's schema. Any number may do it at once.
    #[command(after_help = "\
Examples:
  countersign migrate --config countersign.yaml
  countersign migrate --config countersign.yaml --set store.password_file=/run/secrets/owner")]
    Migrate(MigrateArgs),
    /// Ask a running sidecar about a token, and explain the answer.
    #[command(after_help = "\
Examples:
  countersign verify eyJhbGciOi…
  pbpaste | countersign verify -
  countersign verify - --scope orders:write --fully-consistent < token.txt
  countersign verify --address unix:/run/countersign/api.sock eyJhbGciOi…")]
    Verify(VerifyArgs),
    /// Look into a token offline. Nothing is verified: no key is used and nobody is asked.
    #[command(after_help = "\
Examples:
  countersign inspect eyJhbGciOi…
  pbpaste | countersign inspect -")]
    Inspect {
        /// The token; `-` reads it from standard input, which keeps it out of the shell's history.
        token: String,
    },
    /// Make, rotate and list the key-set files that tokens are signed and authenticated with.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Ask a running sidecar for its health; for exec probes.
    #[command(after_help = "\
Examples:
  countersign health
  countersign health --service liveness --address 127.0.0.1:9090")]
    Health(HealthArgs),
    /// List and end sessions through a running sidecar.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Print a completion script for a shell.
    #[command(after_help = "\
Example:
  countersign completions bash > /etc/bash_completion.d/countersign")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "dev", conflicts_with = "dev")]
    config: Option<PathBuf>,
    /// For development: no file needed; embedded store and fresh keys in a temporary directory, loopback only, every
    /// right granted to every caller.
    #[arg(long)]
    dev: bool,
    /// Set one key over file and environment; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "reference")]
    config: Option<PathBuf>,
    /// Set one key over file and environment; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Don't ask the store's server.
    #[arg(long)]
    offline: bool,
    /// Print every key with its type, default and meaning, as Markdown.
    #[arg(long)]
    reference: bool,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Set one key over file and environment; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Where a running sidecar listens.
#[derive(Clone, Debug, Args)]
struct Target {
    /// The sidecar's api listener: HOST:PORT or unix:/PATH.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:50051",
        env = "COUNTERSIGN_ADDRESS",
        global = true
    )]
    address: String,
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration, global = true)]
    timeout: std::time::Duration,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The token; `-` reads it from standard input, which keeps it out of the shell's history.
    token: String,
    #[command(flatten)]
    target: Target,
    /// The cookie's exact name, of an encrypted session cookie.
    #[arg(long, value_name = "COOKIE", default_value = "")]
    name: String,
    /// The token must be meant for one of these; may be repeated.
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// The token must have this scope; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Ask the store now.
    #[arg(long, conflicts_with = "at_least_as_fresh")]
    fully_consistent: bool,
    /// Wait until the sidecar has this revision.
    #[arg(long, value_name = "REVISION")]
    at_least_as_fresh: Option<String>,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// The ops listener (or api listener) to ask: HOST:PORT or unix:/PATH.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", env = "COUNTERSIGN_OPS_ADDRESS")]
    address: String,
    /// `readiness` or `liveness`.
    #[arg(long, default_value = "readiness")]
    service: String,
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: std::time::Duration,
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List a subject's live sessions, newest first.
    #[command(after_help = "\
Example:
  countersign sessions list alice --secret-file /etc/countersign/admin.secret")]
    List {
        /// Whose.
        subject: String,
        #[command(flatten)]
        caller: Caller,
    },
    /// End one session, or all of a subject's.
    #[command(after_help = "\
Examples:
  countersign sessions end 3q2-7wAAAAAAAAAAAAAAAA
  countersign sessions end --subject alice
  countersign sessions end --subject alice --except 3q2-7wAAAAAAAAAAAAAAAA")]
    End {
        /// The session.
        #[arg(required_unless_present = "subject", conflicts_with = "subject", allow_hyphen_values = true)]
        session: Option<String>,
        /// All sessions of this subject.
        #[arg(long)]
        subject: Option<String>,
        /// Spare this one of the subject's sessions.
        #[arg(long, value_name = "SESSION", requires = "subject", allow_hyphen_values = true)]
        except: Option<String>,
        #[command(flatten)]
        caller: Caller,
    },
}

/// Who asks.
#[derive(Debug, Args)]
struct Caller {
    #[command(flatten)]
    target: Target,
    /// The file with this caller's secret, where the sidecar knows it by one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a new key-set file with one key that is in use at once.
    #[command(after_help = "\
Examples:
  countersign keys new signing.json
  countersign keys new signing.json --algorithm ES256
  countersign keys new handles.json --purpose handles")]
    New {
        /// The file to make, with mode 0600; one that stands is not touched.
        file: PathBuf,
        /// What the keys are for: `signing` access tokens, or `handles`, which authenticate refresh and session tokens.
        #[arg(long, default_value = "signing")]
        purpose: keys::Purpose,
        /// For signing keys: EdDSA, ES256 or RS256.
        #[arg(long, default_value = "EdDSA")]
        algorithm: String,
    },
    /// Add the next key: published at once, in use later, while the old one stays until its tokens are dead.
    #[command(after_help = "\
Example:
  countersign keys rotate signing.json --publish-ahead 1h --longest-life 15m")]
    Rotate {
        /// The key-set file.
        file: PathBuf,
        /// How long everyone has to learn the next key before it is used.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
        publish_ahead: std::time::Duration,
        /// How long a token of the old key can live: an access token's life for signing keys, the longest absolute
        /// session life for handle keys.
        #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = humantime::parse_duration)]
        longest_life: std::time::Duration,
    },
    /// List a file's keys: id, algorithm, and where each is in its life.
    List {
        /// The key-set file.
        file: PathBuf,
    },
}

/// Runs the command line given; the name of the program comes first.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let output = Output::standard();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(told) => {
            let code = if told.use_stderr() { USAGE } else { YES };
            return if told.print().is_ok() { code.into() } else { USAGE.into() };
        }
    };
    let code = match cli.command {
        Command::Serve(args) => serve::run(&args, &output),
        Command::Check(args) => check::run(&args, &output),
        Command::Migrate(args) => migrate::run(&args, &output),
        Command::Verify(args) => with_token(&args.token, &output, |token| verify::run(&args, token, &output)),
        Command::Inspect { token } => with_token(&token, &output, |token| look::run(token, &output)),
        Command::Keys(command) => keys::run(&command, &output),
        Command::Health(args) => health::run(&args, &output),
        Command::Sessions(command) => sessions::run(&command, &output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "countersign", &mut script);
            output.raw(&script);
            YES
        }
    };
    code.into()
}

/// No token is longer than this, and standard input could be endless.
const MAX_INPUT: u64 = 1024 * 1024;

/// The token as typed, or from standard input where it is `-`.
fn with_token(typed: &str, output: &Output, then: impl FnOnce(&str) -> u8) -> u8 {
    if typed != "-" {
        return then(typed.trim());
    }
    let mut read = String::new();
    match std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut read) {
        Ok(_) => then(read.trim()),
        Err(error) => output.fault(&format!("can't read the token from standard input: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
