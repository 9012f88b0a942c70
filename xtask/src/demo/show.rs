//! How the demo prints headings, commands and their output.

use std::process::Output;

use nettune_tests::progress::print;

/// Starts a new part.
pub(super) fn heading(text: &str) -> anyhow::Result<()> {
    print(&format!("\n== {text}"))?;
    Ok(())
}

/// A sentence in between.
pub(super) fn note(text: &str) -> anyhow::Result<()> {
    print(text)?;
    Ok(())
}

/// A command after its prompt, and its output.
pub(super) fn command(prompt: &str, line: &str, output: &str) -> anyhow::Result<()> {
    print(&format!("{prompt} {line}"))?;
    let output = output.trim_end();
    if !output.is_empty() {
        print(output)?;
    }
    Ok(())
}

/// Arguments as one would type them in a shell.
pub(super) fn typed(args: &[&str]) -> String {
    let quoted = |arg: &&str| {
        if arg.contains([' ', '"', '{', '(', '*', '<', '>', '?']) {
            format!("'{arg}'")
        } else {
            (*arg).to_owned()
        }
    };
    args.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Standard output, then standard error.
pub(super) fn both(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}
