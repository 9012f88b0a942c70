//! `kubectl nettune`: what nettune would do, and why.
//!
//! The sizes come from the operator's own code, so that a plan cannot disagree with it.

mod args;
mod input;
mod plan;
mod report;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use args::{Args, Command, Output};

fn main() -> ExitCode {
    let args = match args::parse() {
        Ok(args) => args,
        Err(exit) => return exit,
    };
    let Args {
        command: Command::Plan(args),
    } = args;
    let printed = plan::plan(&args)
        .map_err(|error| (2, Box::from(error)))
        .and_then(|plan| print(args.output, &plan).map_err(|error| (1, error)));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            eprintln!("{}", nettune_offline::error::text(&*error));
            ExitCode::from(code)
        }
    }
}

fn print(output: Output, plan: &report::Plan) -> Result<(), Box<dyn Error>> {
    let text = match output {
        Output::Text => table::draw(plan),
        Output::Json => serde_json::to_string_pretty(plan)? + "\n",
        Output::Yaml => serde_saphyr::to_string(plan)?,
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `| head` has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
