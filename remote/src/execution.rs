//! Has a server of the Remote Execution API run a program.
//!
//! The program travels with all its libraries, so it runs wherever the kernel and the processor are the same: where the input root is
//! the whole file system, and where it is only the current folder.
//!
//! ```text
//! stagegraph  lib/…  in        the input root; `lib` has the dynamic linker and all libraries
//! lib/ld-linux-… --library-path lib ./stagegraph shard in out
//! out                          what it gave
//! ```

use std::path::PathBuf;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2::execution_client::ExecutionClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    Action, Command, Digest, Directory, DirectoryNode, ExecuteRequest, ExecuteResponse, FileNode, Platform,
    platform,
};
use bazel_remote_apis::google::longrunning::{Operation, operation};
use prost::Message;
use tonic::Code;

use crate::address::ServerAddress;
use crate::channel::{DEADLINE, Failure, told};
use crate::content::{Blob, Content, MESSAGE};
use crate::gate::Gate;
use crate::reapi::Reapi;
use crate::settings::Settings;
use crate::sign::KeyError;

/// How long a server may say nothing of what it runs.
const SILENCE: Duration = Duration::from_secs(60);

/// The names in the input root.
const PROGRAM: &str = "stagegraph";
const LIBRARIES: &str = "lib";
const INPUT: &str = "in";
const OUTPUT: &str = "out";

/// A program and all that it needs to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file.
    pub file: PathBuf,
    /// Its libraries, and the dynamic linker among them; none for a program that needs none.
    pub libraries: Vec<PathBuf>,
    /// The verb that reads `in` and writes `out`.
    pub verb: String,
}

/// What a server runs, as it was sent there once.
#[derive(Clone)]
struct Sent {
    command: Digest,
    program: FileNode,
    libraries: Option<DirectoryNode>,
    platform: Platform,
}

/// Runs a program elsewhere.
pub struct Execution {
    server: Reapi,
    program: Program,
    properties: Vec<(String, String)>,
    sent: tokio::sync::OnceCell<Sent>,
    gate: Gate,
}

impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution").field("program", &self.program.file).finish_non_exhaustive()
    }
}

impl Execution {
    /// Makes a server ready; `properties` are what its workers are chosen by.
    ///
    /// # Errors
    /// A file that the settings name cannot be used.
    pub fn new(
        address: &ServerAddress,
        settings: &Settings,
        program: Program,
        properties: Vec<(String, String)>,
    ) -> Result<Self, KeyError> {
        let server = Reapi::new(address, settings)?;
        let name = format!("{}, as workers", address.text);
        let gate = Gate::new(name, "this build compresses without it", settings);
        Ok(Self { server, program, properties, sent: tokio::sync::OnceCell::new(), gate })
    }

    /// Has the program run over an input; ends soon after `stop` says so.
    ///
    /// # Errors
    /// Why there is no output.
    pub fn run(&self, input: &[u8], stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u8>, String> {
        self.gate.enter()?;
        let began = std::time::Instant::now();
        let failure = match self.server.link.wait_unless(self.execute(input), stop) {
            Ok(output) => {
                self.gate.worked();
                return Ok(output);
            }
            Err(failure) => failure,
        };
        let why = told(&failure);
        match (&failure, failure.code()) {
            // Nobody waits for it any more.
            (Failure::Store(_), _) => {}
            (_, Some(Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied)) => {
                self.gate.refused(&why);
            }
            (Failure::Unreachable(_), _) => self.gate.failed(&why, began, true),
            _ => self.gate.failed(&why, began, false),
        }
        Err(why)
    }

    /// Takes in that an output was wrong.
    pub fn gave_wrong(&self, why: &str) {
        self.gate.altered(why);
    }

    async fn execute(&self, input: &[u8]) -> Result<Vec<u8>, Failure> {
        let content = self.server.content().await?;
        let sent = self.sent.get_or_try_init(|| self.send_program(&content)).await?;
        let input = Blob { digest: content.function.of(input), bytes: input.to_vec() };
        let file =
            FileNode { name: INPUT.to_owned(), digest: Some(input.digest.clone()), ..Default::default() };
        let root = Directory {
            files: vec![file, sent.program.clone()],
            directories: sent.libraries.iter().cloned().collect(),
            ..Default::default()
        };
        let root = blob(&content, &root);
        let action = Action {
            command_digest: Some(sent.command.clone()),
            input_root_digest: Some(root.digest.clone()),
            platform: Some(sent.platform.clone()),
            ..Default::default()
        };
        let action = blob(&content, &action);
        let name = action.digest.clone();
        content.send_missing(vec![input, root, action]).await?;
        let result = self.wait_for(&content, name).await?;
        let file = result.output_files.into_iter().find(|file| file.path == OUTPUT);
        let file = file.ok_or_else(|| Failure::Nonsense("what ran left no output".to_owned()))?;
        let digest = file.digest.ok_or_else(|| Failure::Nonsense("an output without a name".to_owned()))?;
        if !file.contents.is_empty() && content.function.of(&file.contents) == digest {
            return Ok(file.contents);
        }
        content.read_one(&digest).await
    }

    /// Has the action run, and waits as long as the server says something of it.
    async fn wait_for(
        &self,
        content: &Content<'_>,
        action: Digest,
    ) -> Result<bazel_remote_apis::build::bazel::remote::execution::v2::ActionResult, Failure> {
        let started = content.link.call("having something run", DEADLINE, |channel| async {
            let request = content.link.request(ExecuteRequest {
                instance_name: content.link.instance.clone(),
                action_digest: Some(action.clone()),
                digest_function: content.function.number(),
                ..Default::default()
            })?;
            let mut client = ExecutionClient::new(channel).max_decoding_message_size(MESSAGE);
            Ok(client.execute(request).await?)
        });
        let mut operations = started.await?;
        loop {
            let operation = tokio::time::timeout(SILENCE, operations.message()).await;
            let operation = operation.map_err(|_| Failure::Late("something that runs", SILENCE))??;
            let ended = || Failure::Nonsense("it stopped telling of what runs".to_owned());
            let Operation { done, result, .. } = operation.ok_or_else(ended)?;
            if !done {
                continue;
            }
            let response = match result {
                Some(operation::Result::Response(any)) => ExecuteResponse::decode(&*any.value)
                    .map_err(|error| Failure::Nonsense(error.to_string()))?,
                Some(operation::Result::Error(status)) => {
                    return Err(tonic::Status::new(Code::from_i32(status.code), status.message).into());
                }
                None => return Err(Failure::Nonsense("something that runs ended with nothing".to_owned())),
            };
            let status = response.status.unwrap_or_default();
            if status.code != 0 {
                return Err(tonic::Status::new(Code::from_i32(status.code), status.message).into());
            }
            let result = response.result.unwrap_or_default();
            if result.exit_code != 0 {
                let said = String::from_utf8_lossy(&result.stderr_raw).trim().to_owned();
                let why = format!("what ran there ended with {}: {said}", result.exit_code);
                return Err(Failure::Nonsense(why));
            }
            return Ok(result);
        }
    }

    /// Sends the program with its libraries, and the command.
    async fn send_program(&self, content: &Content<'_>) -> Result<Sent, Failure> {
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path)
                .map_err(|error| Failure::Unreachable(format!("read {}: {error}", path.display())))?;
            Ok::<_, Failure>(Blob { digest: content.function.of(&bytes), bytes })
        };
        let node = |name: &str, blob: &Blob| FileNode {
            name: name.to_owned(),
            digest: Some(blob.digest.clone()),
            is_executable: true,
            ..Default::default()
        };
        let program = read(&self.program.file)?;
        let program_node = node(PROGRAM, &program);
        let mut blobs = vec![program];
        let mut files = Vec::new();
        let mut linker = None;
        for path in &self.program.libraries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let library = read(path)?;
            files.push(node(&name, &library));
            blobs.push(library);
            if name.starts_with("ld-") || name.starts_with("ld64") {
                linker = Some(name);
            }
        }
        // The names of a directory are in order, each once.
        files.sort_by(|one, other| one.name.cmp(&other.name));
        files.dedup_by(|one, other| one.name == other.name);
        let mut arguments: Vec<String> = linker.map_or_else(Vec::new, |linker| {
            vec![format!("{LIBRARIES}/{linker}"), "--library-path".to_owned(), LIBRARIES.to_owned()]
        });
        arguments.extend([&format!("./{PROGRAM}"), &self.program.verb, INPUT, OUTPUT].map(str::to_owned));
        let mut properties = self.properties.clone();
        properties.sort();
        let property = |(name, value)| platform::Property { name, value };
        let platform = Platform { properties: properties.into_iter().map(property).collect() };
        // Servers of before version 2.2 look here, those of later ones in the action.
        #[expect(deprecated)]
        let command = Command {
            arguments,
            output_paths: vec![OUTPUT.to_owned()],
            platform: Some(platform.clone()),
            ..Default::default()
        };
        let command = blob(content, &command);
        let name = command.digest.clone();
        blobs.push(command);
        let libraries = (!files.is_empty()).then(|| {
            let folder = blob(content, &Directory { files, ..Default::default() });
            let node = DirectoryNode { name: LIBRARIES.to_owned(), digest: Some(folder.digest.clone()) };
            blobs.push(folder);
            node
        });
        content.send_missing(blobs).await?;
        Ok(Sent { command: name, program: program_node, libraries, platform })
    }
}

fn blob(content: &Content<'_>, message: &impl Message) -> Blob {
    let bytes = message.encode_to_vec();
    Blob { digest: content.function.of(&bytes), bytes }
}
