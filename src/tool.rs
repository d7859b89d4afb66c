//! `stockade tool`: which tools there are, whether their files are in order, who has signed them, and a call of one.
//!
//! Reads the directories of tools as a daemon does: whole and in order, or not at all.

mod call;
mod keys;
mod store;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stockade_gate::tools::{Registry, Tool, ToolError, load};
use stockade_gate::validate::Schema;
use stockade_supervisor::paths::{SYSTEM_CONFIGURATION, Scope};
use stockade_supervisor::policies;

use crate::color::Paint;
use crate::error::{CliError, chain};
use crate::{escape, exit, json, out, sources, table};

/// The directory of tools, in the configuration's.
const TOOLS: &str = "tools";

const EXAMPLES: &str = "Examples:
  stockade tool check search.toml
  stockade tool add search.toml
  stockade tool list
  stockade tool call search '{\"pattern\": \"TODO\", \"paths\": [\"src\"]}'
  jq -n '{pattern: \"TODO\", paths: [\"src\"]}' | stockade tool call search -
  stockade tool test search
  stockade tool keygen ~/key.toml > keys/me.toml
  stockade tool sign search.toml --key ~/key.toml

Exit status: 0; 1 something is wrong; 2 for a wrong command line; `call`: that of `stockade run`.";

/// Lists, checks, signs and calls tools: commands called with JSON.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The directory of tools, in place of the usual ones
    #[arg(long, value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Take no tool that isn't signed with a trusted key
    #[arg(long, global = true)]
    require_signed: bool,
    #[command(subcommand)]
    subcommand: Subcommand,
}

impl Arguments {
    /// Whether a tool is called.
    pub(crate) fn is_call(&self) -> bool {
        matches!(self.subcommand, Subcommand::Call(_))
    }
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// The tools there are
    List {
        /// One JSON object a tool
        #[arg(long)]
        json: bool,
    },
    /// What a tool does, what it takes, and what it may
    Show {
        /// Its name
        name: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Checks files: every error with file, line and column
    Check {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// One JSON object a file
        #[arg(long)]
        json: bool,
    },
    /// Puts a tool's file, and its signature's, among the others, if all of them together are in order
    Add {
        /// The file
        file: PathBuf,
        /// In place of the tool of that name
        #[arg(long)]
        replace: bool,
    },
    /// Takes a tool away
    Remove {
        /// Its name
        name: String,
    },
    /// Runs a tool's examples, confined, and says whether they come out as its file says
    Test {
        /// Their names [default: all]
        names: Vec<String>,
        /// The directory they work in [default: this one]
        #[arg(short, long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// One JSON object an example
        #[arg(long)]
        json: bool,
    },
    /// Calls a tool with JSON parameters
    Call(call::Arguments),
    /// Signs a tool's file: FILE.sig
    Sign {
        /// The file
        file: PathBuf,
        /// The secret key's file
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Says whose signature stands over a tool's file
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Makes a key: the secret one in a file of yours, the public one on standard output
    Keygen {
        /// The secret key's file, which mustn't be there yet
        file: PathBuf,
    },
}

pub(crate) fn tool(arguments: &Arguments) -> Result<u8, CliError> {
    let place = Place::of(arguments);
    match &arguments.subcommand {
        Subcommand::List { json } => list(&place, *json),
        Subcommand::Show { name, json } => show(&place, name, *json),
        Subcommand::Check { files, json } => check(files, *json),
        Subcommand::Add { file, replace } => store::add(&place, file, *replace),
        Subcommand::Remove { name } => store::remove(&place, name),
        Subcommand::Test { names, workspace, json } => call::test(&place, names, workspace.as_deref(), *json),
        Subcommand::Call(arguments) => call::call(&place, arguments),
        Subcommand::Sign { file, key } => keys::sign(file, key),
        Subcommand::Verify { file } => keys::verify(&place, file),
        Subcommand::Keygen { file } => keys::keygen(file),
    }
}

/// Where tools are.
struct Place {
    directories: Vec<PathBuf>,
    /// Where they are put.
    own: PathBuf,
    is_required: bool,
    /// Whether somebody has named it, or how tools have to be: then it's not for a daemon to say which there are.
    is_named: bool,
}

impl Place {
    fn of(arguments: &Arguments) -> Self {
        let is_required = arguments.require_signed;
        if let Some(named) = &arguments.directory {
            let directories = vec![named.clone()];
            return Self { directories, own: named.clone(), is_required, is_named: true };
        }
        let surroundings = sources::surroundings();
        let machines = Path::new(SYSTEM_CONFIGURATION).join(TOOLS);
        let own = match surroundings.scope {
            Scope::Machine => machines.clone(),
            Scope::User => surroundings.configuration().join(TOOLS),
        };
        let mut directories = vec![machines, own.clone()];
        directories.dedup();
        Self { directories, own, is_required, is_named: is_required }
    }

    fn registry(&self) -> Result<Registry, CliError> {
        load::registry(&self.directories, self.is_required, &look).map_err(|errors| wrong(&errors))
    }
}

/// Whether a file says what is run, for us.
fn look(path: &Path, found: &std::fs::Metadata) -> Result<(), stockade_policies::files::Refusal> {
    policies::look(path, found, rustix::process::geteuid().as_raw())
}

/// All that is wrong, a line each.
fn wrong(errors: &[ToolError]) -> CliError {
    let lines: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    CliError::Asked(lines.join("\n"))
}

fn get<'a>(registry: &'a Registry, name: &str) -> Result<&'a Tool, CliError> {
    registry.get(name).map(AsRef::as_ref).map_err(|error| CliError::Asked(error.to_string()))
}

fn list(place: &Place, as_json: bool) -> Result<u8, CliError> {
    let registry = place.registry()?;
    if as_json {
        let lines: Vec<u8> = registry.tools().flat_map(|tool| json::line(&described(tool))).collect();
        return out::print(&lines);
    }
    let head = ["TOOL", "VERSION", "POLICY", "TITLE"].map(str::to_owned);
    let row = |tool: &Tool| {
        let cells = [&tool.name, &tool.version, &tool.policy, &tool.title];
        cells.map(|cell| escape::line(cell.as_bytes()))
    };
    let rows: Vec<_> = std::iter::once(head).chain(registry.tools().map(|tool| row(tool))).collect();
    let paint = Paint::to(&std::io::stdout());
    let text =
        table::columns(&rows, |row, _, cell| if row == 0 { paint.bold(cell) } else { cell.to_owned() });
    out::print(text.as_bytes())
}

fn described(tool: &Tool) -> Value {
    json!({
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "version": tool.version,
        "policy": tool.policy,
        "roles": tool.roles,
        "program": tool.template.program,
        "pin": tool.pin.map(|pin| pin.to_string()),
        "parameters": tool.parameters.said(),
        "result": tool.result.as_ref().map(Schema::said),
        "limits": tool.limits,
        "rate": tool.rate.map(|rate| json!({ "per-minute": rate.per_minute, "burst": rate.burst })),
        "breaker": tool.breaker.map(|breaker| json!({
            "failures": breaker.failures,
            "window-ms": milliseconds(breaker.window),
            "pause-ms": milliseconds(breaker.pause),
            "probes": breaker.probes,
        })),
        "failures": tool.failures,
        "examples": tool.examples.iter().map(|example| json!({
            "title": example.title,
            "parameters": example.parameters,
            "exit": example.exit,
            "output": example.output,
        })).collect::<Vec<_>>(),
        "digest": tool.digest.to_string(),
        "file": tool.file,
    })
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn show(place: &Place, name: &str, as_json: bool) -> Result<u8, CliError> {
    let registry = place.registry()?;
    let tool = get(&registry, name)?;
    if as_json {
        return out::print(&json::line(&described(tool)));
    }
    let pin = tool.pin.map_or_else(|| "any".to_owned(), |pin| pin.to_string());
    let parameters = serde_json::to_string_pretty(tool.parameters.said()).unwrap_or_default();
    let mut text = format!(
        "{} {}: {}\n\n{}\n\npolicy:   {}\nprogram:  {}\n  sha256: {pin}\nfile:     {}\n  sha256: {}\n\nparameters:\n{parameters}\n",
        tool.name,
        tool.version,
        tool.title,
        tool.description.trim_end(),
        tool.policy,
        tool.template.program,
        tool.file,
        tool.digest,
    );
    for example in &tool.examples {
        let parameters = Value::Object(example.parameters.clone());
        text.push_str(&format!("\nexample:  stockade tool call {} '{parameters}'", tool.name));
    }
    if !tool.examples.is_empty() {
        text.push('\n');
    }
    out::print(escape::text(text.as_bytes()).as_bytes())
}

/// Each file for itself: neither whose it is nor who has signed it is asked.
fn check(files: &[PathBuf], as_json: bool) -> Result<u8, CliError> {
    let (mut status, mut lines) = (0, Vec::new());
    for file in files {
        let errors: Vec<String> = match read(file) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(|error| chain(error)).collect(),
        };
        if !errors.is_empty() {
            status = exit::FAILED;
        }
        let shown = escape::line(file.as_os_str().as_encoded_bytes());
        if as_json {
            lines.extend(json::line(&json!({ "file": shown, "ok": errors.is_empty(), "errors": errors })));
        } else if errors.is_empty() {
            lines.extend(format!("{shown}: ok\n").into_bytes());
        } else {
            lines.extend(errors.iter().flat_map(|error| format!("{error}\n").into_bytes()));
        }
    }
    out::print_with(&lines, status)
}

fn read(file: &Path) -> Result<(load::Text, Tool), Vec<ToolError>> {
    let text = load::file(file).map_err(|error| vec![ToolError::from(error)])?;
    let tool = Tool::read(&text.file, &text.name, &text.text, &load::spent);
    let tool = tool.map_err(|mistakes| mistakes.into_iter().map(ToolError::from).collect::<Vec<_>>())?;
    Ok((text, tool))
}
