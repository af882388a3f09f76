//! `countersign serve`.

use crate::app::{App, LevelSource};
use crate::cli::check::{self, Told};
use crate::cli::output::Output;
use crate::cli::{ServeArgs, UNDECIDED, USAGE, YES, dev};
use crate::clock::Clock;
use crate::config::{self, Config, LogFormat};
use crate::ops::telemetry::{self, Format};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub(crate) fn run(args: &ServeArgs, output: &Output) -> u8 {
    let dev = args.dev.then(dev::Home::new).transpose();
    let dev = match dev {
        Ok(dev) => dev,
        Err(why) => return output.fault(&why),
    };
    let mut settings = dev.as_ref().map(dev::Home::settings).unwrap_or_default();
    settings.extend(args.set.iter().cloned());
    let loaded = check::overlay(&settings)
        .and_then(|overlay| Ok((config::load(args.config.as_deref(), &overlay)?, overlay)));
    let (config, overlay) = match loaded {
        Ok(loaded) => loaded,
        Err(Told::Faults(faults)) => {
            return output.fault(&format!("the configuration has faults\n{faults}"));
        }
        Err(Told::Words(why)) => return output.fault(&why),
    };
    let format = match config.log.format {
        LogFormat::Human => Format::Human,
        LogFormat::Json => Format::Json,
    };
    let logging = match telemetry::init(format, config.log.level.as_str()) {
        Ok(logging) => logging,
        Err(error) => return output.fault(&error.to_string()),
    };
    let level = args.config.clone().map(|file| LevelSource { file, overlay, logging });
    // One thread for everything beside the calls; these have their workers.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.undecided(&format!("can't start: {error}")),
    };
    let code = runtime.block_on(serve(config, level, dev, output));
    // A file being looked at must not keep the process.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config, level: Option<LevelSource>, dev: Option<dev::Home>, output: &Output) -> u8 {
    let clock = Clock::system();
    let assembled = crate::app::Assembly::new(config, clock.clone());
    let assembled = assembled
        .map(|assembly| if dev.is_some() { assembly.danger_allow_everyone("developer") } else { assembly });
    let assembled = assembled.map(|assembly| match level {
        Some(source) => assembly.following_log_level(source),
        None => assembly,
    });
    let app = match assembled {
        Ok(assembly) => assembly.bind().await,
        Err(error) => Err(error),
    };
    let app = match app {
        Ok(app) => app,
        Err(error) => {
            output.fault(&crate::app::explain(&error));
            return USAGE;
        }
    };
    announce(&app);
    let shutdown = CancellationToken::new();
    if let Err(error) = shut_down_on_signal(shutdown.clone()) {
        return output.undecided(&format!("can't listen for signals: {error}"));
    }
    let greeting = dev.as_ref().map(|home| home.greet(&app, output));
    let running = app.run(shutdown);
    let ended = match greeting {
        Some(greeting) => tokio::join!(running, greeting).0,
        None => running.await,
    };
    match ended {
        Ok(()) => YES,
        Err(error) => {
            output.undecided(&format!("can't run: {error}"));
            UNDECIDED
        }
    }
}

fn announce(app: &App) {
    for address in app.api_addresses() {
        tracing::info!(listener = "api", address, "listening");
    }
    tracing::info!(listener = "ops", address = %app.ops_address(), "listening");
}

/// SIGTERM, as orchestrators send it, and Ctrl-C.
fn shut_down_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Ends with the runtime; nobody waits for it.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
