//! The action cache of a server: under which key a result is, and in what form.
//!
//! | here | there |
//! |---|---|
//! | key of an action | digest of `Action { command: constant, input_root: empty, salt: "stagegraph result 1\n" + key [+ "\n" + word] }` |
//! | statement, signatures | output files `statement` and `statement.sig`, with their contents; blobs as well |
//! | chunks | output files `objects/NUMBER`, so that a server keeps together what belongs together |
//!
//! Nothing is in `auxiliary_metadata`, which servers drop, nor in `stdout_raw`, which they move.

use bazel_remote_apis::build::bazel::remote::execution::v2::action_cache_client::ActionCacheClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    Action, ActionResult, Command, Directory, GetActionResultRequest, OutputFile, UpdateActionResultRequest,
};
use cache::ActionDigest;
use cache::upstream::Chunk;
use prost::Message;
use tonic::Code;

use crate::channel::{DEADLINE, Failure, deadline_of};
use crate::content::{Blob, Content, MESSAGE};

/// Opens the salt of every action; another one is another form of results.
const SALT: &str = "stagegraph result 1\n";

const STATEMENT: &str = "statement";
const SIGNATURES: &str = "statement.sig";

/// A statement up to this many bytes is in the result itself.
const INLINE: usize = 1 << 20;

/// Chunks that a result names, at most: it has to fit into a message.
const NAMED: usize = 15_000;

/// What a server has under a key.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) statement: Vec<u8>,
    pub(crate) signatures: Vec<u8>,
}

/// The messages that stand for an action.
struct Key {
    action: Blob,
    command: Blob,
    root: Blob,
}

impl Content<'_> {
    fn key(&self, action: &ActionDigest, word: &str) -> Key {
        let blob = |bytes: Vec<u8>| Blob { digest: self.function.of(&bytes), bytes };
        let command =
            blob(Command { arguments: vec!["stagegraph".to_owned()], ..Default::default() }.encode_to_vec());
        let root = blob(Directory::default().encode_to_vec());
        let mut salt = format!("{SALT}{action}");
        if !word.is_empty() {
            salt.push('\n');
            salt.push_str(word);
        }
        let action = Action {
            command_digest: Some(command.digest.clone()),
            input_root_digest: Some(root.digest.clone()),
            salt: salt.into_bytes(),
            ..Default::default()
        };
        Key { action: blob(action.encode_to_vec()), command, root }
    }

    /// Returns what the server has for an action.
    pub(crate) async fn result(&self, action: &ActionDigest, word: &str) -> Result<Option<Found>, Failure> {
        let key = self.key(action, word);
        let answer = self.link.call("a question for a result", DEADLINE, |channel| async {
            let request = self.link.request(GetActionResultRequest {
                instance_name: self.link.instance.clone(),
                action_digest: Some(key.action.digest.clone()),
                inline_output_files: vec![STATEMENT.to_owned(), SIGNATURES.to_owned()],
                digest_function: self.function.number(),
                ..Default::default()
            })?;
            let mut client = ActionCacheClient::new(channel).max_decoding_message_size(MESSAGE);
            Ok(client.get_action_result(request).await?)
        });
        let result = match answer.await {
            Err(failure) if failure.code() == Some(Code::NotFound) => return Ok(None),
            answer => answer?,
        };
        // Some servers keep failures.
        if result.exit_code != 0 {
            return Ok(None);
        }
        let Some(statement) = self.output(&result, STATEMENT).await? else { return Ok(None) };
        let signatures = self.output(&result, SIGNATURES).await?.unwrap_or_default();
        Ok(Some(Found { statement, signatures }))
    }

    /// Returns the bytes of a file of a result; `None` where there is none, or the server does not have it.
    async fn output(&self, result: &ActionResult, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let Some(file) = result.output_files.iter().find(|file| file.path == path) else { return Ok(None) };
        let Some(digest) = &file.digest else { return Ok(Some(file.contents.clone())) };
        let bytes = match file.contents.is_empty() && digest.size_bytes > 0 {
            true => {
                let size = u64::try_from(digest.size_bytes).unwrap_or(u64::MAX);
                if size > self.limit_of_statement() {
                    return Ok(None);
                }
                let mut read = self.read_blobs(std::slice::from_ref(digest), size).await?;
                let Some(bytes) = read.remove(&digest.hash) else { return Ok(None) };
                bytes
            }
            false => file.contents.clone(),
        };
        // What was altered on the way counts for nothing.
        Ok((self.function.of(&bytes) == *digest).then_some(bytes))
    }

    /// Returns how large a statement may be: it comes in one message.
    fn limit_of_statement(&self) -> u64 {
        self.batch.min(MESSAGE as u64 / 2)
    }

    /// Enters a result; its chunks must be there.
    pub(crate) async fn set_result(
        &self,
        action: &ActionDigest,
        word: &str,
        statement: &[u8],
        signatures: &[u8],
        chunks: &[Chunk],
    ) -> Result<(), Failure> {
        let key = self.key(action, word);
        let file = |path: &str, bytes: &[u8]| OutputFile {
            path: path.to_owned(),
            digest: Some(self.function.of(bytes)),
            contents: if bytes.len() <= INLINE { bytes.to_vec() } else { Vec::new() },
            ..Default::default()
        };
        let object = |(number, chunk): (usize, &Chunk)| OutputFile {
            path: format!("objects/{number}"),
            digest: Some(self.function.of_chunk(chunk)),
            ..Default::default()
        };
        let mut output_files = vec![file(STATEMENT, statement)];
        if !signatures.is_empty() {
            output_files.push(file(SIGNATURES, signatures));
        }
        output_files.extend(chunks.iter().enumerate().take(NAMED).map(object));
        let mut blobs = vec![key.command, key.root];
        let mut add =
            |bytes: &[u8]| blobs.push(Blob { digest: self.function.of(bytes), bytes: bytes.to_vec() });
        add(&key.action.bytes);
        if !signatures.is_empty() {
            add(signatures);
        }
        self.send_blobs(blobs).await?;
        let statement = Blob { digest: self.function.of(statement), bytes: statement.to_vec() };
        self.send_blobs(vec![statement]).await?;
        let result = ActionResult { output_files, ..Default::default() };
        let size = result.encoded_len() as u64;
        let update = self.link.call("entering a result", deadline_of(size), |channel| async {
            let request = self.link.request(UpdateActionResultRequest {
                instance_name: self.link.instance.clone(),
                action_digest: Some(key.action.digest.clone()),
                action_result: Some(result.clone()),
                digest_function: self.function.number(),
                ..Default::default()
            })?;
            let mut client = ActionCacheClient::new(channel).max_decoding_message_size(MESSAGE);
            Ok(client.update_action_result(request).await?)
        });
        update.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Link;
    use crate::function::Function;
    use crate::settings::Settings;
    use crate::sign::Trust;

    #[test]
    fn the_key_of_a_result_is_pinned_for_each_function() {
        let link = Link::new("http://localhost:1", "", &Settings::new(Trust::All)).unwrap();
        let action = ActionDigest::of_encoding(b"action");
        let key = |function, word| {
            let content = Content { link: &link, function, batch: 0 };
            content.key(&action, word).action.digest
        };
        let one = key(Function::Sha256, "");
        assert_eq!(one.hash, "0d781e8d423b942bc3f4fcbc89b4f82a08543cfc95dafa6eb8e3bfa53de58f46");
        assert_eq!(
            key(Function::Blake3, "").hash,
            "9c81929d19b485a36a116ee8394f879960a743a21f84c8182819b48f7c880845"
        );
        assert_ne!(one, key(Function::Sha256, "again"));
    }
}
