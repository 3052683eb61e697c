//! The engine's process alone, for tests: `whence engine-child` without the rest of Whence.

use std::process::ExitCode;

use whence_engine::{ChildOptions, run_child};

fn main() -> ExitCode {
    let value = |name: &str| {
        let prefix = format!("--{name}=");
        std::env::args()
            .find_map(|argument| argument.strip_prefix(&prefix).map(str::to_owned))
            .unwrap_or_default()
    };
    let options = ChildOptions {
        library: value("library").into(),
        config: value("config-file").into(),
        data: value("path").into(),
        http_port: value("http-port").parse().unwrap_or(0),
    };
    match run_child(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
