//! `pushimg`: parse the command line, run it, tell by the exit code how it went.

use std::process::ExitCode;

use pushimg::cli::{self, Invocation};

/// Waiting needs few threads; compression and hashing bring their own.
const RUNTIME_THREADS: usize = 2;

fn main() -> ExitCode {
    let invocation = match Invocation::from_env() {
        Ok(invocation) => invocation,
        Err(usage) => return usage.show(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(invocation));
            // A thread may sit in a read of standard input that never ends: do not wait for it.
            runtime.shutdown_background();
            code
        }
        Err(error) => cli::cannot_start(&error),
    }
}
