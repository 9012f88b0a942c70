//! `kubectl nettune`: shows what nettune would do, and why.
//!
//! The sizes come from the code of the operator, so a plan cannot differ from what it does.

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
        // A reader such as `head` has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
