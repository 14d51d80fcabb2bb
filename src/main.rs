//! `pushimg`: parse the command line, run it, and return the exit code.

use std::process::ExitCode;

use pushimg::cli::{self, Invocation};

/// The runtime only waits; compression and hashing have threads of their own.
const RUNTIME_THREADS: usize = 2;

fn main() -> ExitCode {
    let invocation = match Invocation::from_env() {
        Ok(invocation) => invocation,
        Err(usage) => return usage.show(),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(RUNTIME_THREADS).enable_all();
    match cli::prepare().and_then(|()| builder.build()) {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(invocation));
            // Do not wait for a thread that still reads standard input.
            runtime.shutdown_background();
            code
        }
        Err(error) => cli::cannot_start(&error),
    }
}
