//! The content store of a server: which blobs it has, reading them, sending them.
//!
//! Several small blobs go in one message, larger ones in a stream of their own. What comes is compared with its name.

use std::collections::HashMap;
use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2::content_addressable_storage_client::ContentAddressableStorageClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, Digest, FindMissingBlobsRequest,
    batch_update_blobs_request,
};
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::{ReadRequest, WriteRequest};
use cache::StoreError;
use cache::upstream::{Chunk, Take};
use futures_util::{StreamExt, TryStreamExt, stream};
use tonic::Code;

use crate::channel::{DEADLINE, Failure, Link, STALL, deadline_of};
use crate::function::Function;

/// Bytes of blobs in one message, at most; servers may want less.
const BATCH: u64 = 1 << 20;

/// What a blob adds to a message beside its bytes.
const BESIDE: u64 = 128;

/// Blobs in one message, and names in one question.
const BLOBS: usize = 500;
const NAMES: usize = 10_000;

/// Messages and streams that are under way at once.
const AT_ONCE: usize = 8;

/// Bytes in one message of a stream.
const PIECE: usize = 256 << 10;

/// Bytes of a blob that is read by its name alone, at most.
const LARGEST: u64 = 128 << 20;

/// The largest message that is taken: a batch, and what it holds beside the bytes.
pub(crate) const MESSAGE: usize = 8 << 20;

/// The content store of a server.
#[derive(Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) link: &'a Link,
    pub(crate) function: Function,
    /// Bytes that the server takes and gives in one message.
    pub(crate) batch: u64,
}

/// Bytes under their name.
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// Splits a list so that each part fits into a message; what is too large stands alone.
fn parts(sizes: &[u64], limit: u64) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (number, size) in sizes.iter().enumerate() {
        let size = size + BESIDE;
        if number > start && (sum + size > limit || number - start == BLOBS) {
            parts.push(start..number);
            (start, sum) = (number, 0);
        }
        sum += size;
    }
    if start < sizes.len() {
        parts.push(start..sizes.len());
    }
    parts
}

impl Content<'_> {
    fn limit(&self) -> u64 {
        BATCH.min(self.batch)
    }

    fn instance(&self) -> String {
        self.link.instance.clone()
    }

    /// Returns which of these the server does not have.
    pub(crate) async fn missing(&self, digests: &[Digest]) -> Result<HashSet<String>, Failure> {
        let mut missing = HashSet::new();
        for names in digests.chunks(NAMES) {
            let answer =
                self.link.call("a question", deadline_of(names.len() as u64 * BESIDE), |channel| async {
                    let request = self.link.request(FindMissingBlobsRequest {
                        instance_name: self.instance(),
                        blob_digests: names.to_vec(),
                        digest_function: self.function.number(),
                    })?;
                    let mut client =
                        ContentAddressableStorageClient::new(channel).max_decoding_message_size(MESSAGE);
                    Ok(client.find_missing_blobs(request).await?)
                });
            missing.extend(answer.await?.missing_blob_digests.into_iter().map(|digest| digest.hash));
        }
        Ok(missing)
    }

    /// Fetches chunks and hands them over in order.
    pub(crate) async fn fetch(&self, chunks: &[Chunk], take: Take<'_>) -> Result<(), Failure> {
        let sizes: Vec<u64> = chunks.iter().map(|chunk| chunk.size).collect();
        let parts = stream::iter(parts(&sizes, self.limit()));
        let fetched = parts
            .map(|part| async move { Ok::<_, Failure>((part.start, self.fetch_part(&chunks[part]).await?)) });
        let mut fetched = std::pin::pin!(fetched.buffered(AT_ONCE));
        while let Some((start, blobs)) = fetched.try_next().await? {
            for (number, bytes) in blobs.into_iter().enumerate() {
                take(start + number, bytes)?;
            }
        }
        Ok(())
    }

    /// Fetches chunks that fit into one message, or one that does not.
    async fn fetch_part(&self, chunks: &[Chunk]) -> Result<Vec<Vec<u8>>, Failure> {
        let read = match chunks {
            [one] if one.size + BESIDE > self.limit() => vec![self.read_stream(one).await?],
            _ => self.read_batch(chunks).await?,
        };
        for (chunk, bytes) in chunks.iter().zip(&read) {
            if self.function.of(bytes) != self.function.of_chunk(chunk) {
                return Err(Failure::Altered(chunk.digest));
            }
        }
        Ok(read)
    }

    async fn read_batch(&self, chunks: &[Chunk]) -> Result<Vec<Vec<u8>>, Failure> {
        let digests: Vec<Digest> = chunks.iter().map(|chunk| self.function.of_chunk(chunk)).collect();
        let size = chunks.iter().map(|chunk| chunk.size).sum();
        let mut answers = self.read_blobs(&digests, size).await?;
        let mut read = Vec::with_capacity(chunks.len());
        for (chunk, digest) in chunks.iter().zip(&digests) {
            // A chunk may be asked for twice.
            let bytes = match answers.get_mut(&digest.hash) {
                Some(bytes) => bytes.clone(),
                None => return Err(Failure::Gone(chunk.digest)),
            };
            read.push(bytes);
        }
        Ok(read)
    }

    /// Reads small blobs by their names; those that the server does not have are not among them.
    pub(crate) async fn read_blobs(
        &self,
        digests: &[Digest],
        size: u64,
    ) -> Result<HashMap<String, Vec<u8>>, Failure> {
        let answer = self.link.call("a batch of blobs", deadline_of(size), |channel| async {
            let request = self.link.request(BatchReadBlobsRequest {
                instance_name: self.instance(),
                digests: digests.to_vec(),
                acceptable_compressors: Vec::new(),
                digest_function: self.function.number(),
            })?;
            let mut client = ContentAddressableStorageClient::new(channel).max_decoding_message_size(MESSAGE);
            Ok(client.batch_read_blobs(request).await?)
        });
        let mut read = HashMap::new();
        for response in answer.await?.responses {
            let Some(digest) = response.digest else {
                return Err(Failure::Nonsense("a blob without a name".to_owned()));
            };
            let status = response.status.unwrap_or_default();
            match Code::from_i32(status.code) {
                Code::Ok => drop(read.insert(digest.hash, response.data)),
                Code::NotFound => {}
                code => return Err(tonic::Status::new(code, status.message).into()),
            }
        }
        Ok(read)
    }

    async fn read_stream(&self, chunk: &Chunk) -> Result<Vec<u8>, Failure> {
        let read = self.stream(&self.function.of_chunk(chunk), chunk.size).await;
        read.map_err(|failure| match failure {
            failure if failure.code() == Some(Code::NotFound) => Failure::Gone(chunk.digest),
            Failure::Nonsense(_) => Failure::Altered(chunk.digest),
            failure => failure,
        })
    }

    /// Reads a blob piece by piece; one of more bytes than that is nonsense.
    async fn stream(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Failure> {
        let resource_name =
            self.resource("", &format!("blobs/{}{}/{size}", self.function.prefix(), digest.hash));
        let started = self.link.call("a blob", DEADLINE, |channel| async {
            let request = ReadRequest { resource_name: resource_name.clone(), read_offset: 0, read_limit: 0 };
            let mut client = ByteStreamClient::new(channel).max_decoding_message_size(MESSAGE);
            Ok(client.read(self.link.request(request)?).await?)
        });
        let mut pieces = started.await?;
        let mut bytes = Vec::new();
        loop {
            let piece = tokio::time::timeout(STALL, pieces.message()).await;
            let piece = piece.map_err(|_| Failure::Late("the next piece of a blob", STALL))?;
            let Some(piece) = piece? else { return Ok(bytes) };
            bytes.extend_from_slice(&piece.data);
            if bytes.len() as u64 > size {
                return Err(Failure::Nonsense(format!("{} has more bytes than it should", digest.hash)));
            }
        }
    }

    fn resource(&self, upload: &str, name: &str) -> String {
        match self.link.instance.as_str() {
            "" => format!("{upload}{name}"),
            instance => format!("{instance}/{upload}{name}"),
        }
    }

    /// Sends chunks; `read` reads the one at a place of the list.
    pub(crate) async fn send(
        &self,
        chunks: &[Chunk],
        wanted: &[usize],
        read: &(dyn Fn(usize) -> Result<Vec<u8>, StoreError> + Sync),
    ) -> Result<(), Failure> {
        let sizes: Vec<u64> = wanted.iter().map(|number| chunks[*number].size).collect();
        let parts = stream::iter(parts(&sizes, self.limit()));
        let sent = parts.map(|part| async move {
            let blob = |number: &usize| {
                Ok(Blob { digest: self.function.of_chunk(&chunks[*number]), bytes: read(*number)? })
            };
            self.send_blobs(wanted[part].iter().map(blob).collect::<Result<_, StoreError>>()?).await
        });
        sent.buffer_unordered(AT_ONCE / 2).try_collect().await
    }

    /// Sends blobs that fit into one message, or one that does not.
    pub(crate) async fn send_blobs(&self, mut blobs: Vec<Blob>) -> Result<(), Failure> {
        if let [one] = &mut blobs[..]
            && one.bytes.len() as u64 + BESIDE > self.limit()
        {
            let bytes = std::mem::take(&mut one.bytes);
            return self.write_stream(&one.digest, bytes).await;
        }
        let size = blobs.iter().map(|blob| blob.bytes.len() as u64).sum();
        let answer = self.link.call("sending blobs", deadline_of(size), |channel| async {
            let request = |blob: &Blob| batch_update_blobs_request::Request {
                digest: Some(blob.digest.clone()),
                data: blob.bytes.clone(),
                compressor: 0,
            };
            let request = self.link.request(BatchUpdateBlobsRequest {
                instance_name: self.instance(),
                requests: blobs.iter().map(request).collect(),
                digest_function: self.function.number(),
            })?;
            Ok(ContentAddressableStorageClient::new(channel).batch_update_blobs(request).await?)
        });
        for response in answer.await?.responses {
            let status = response.status.unwrap_or_default();
            if status.code != 0 {
                return Err(tonic::Status::new(Code::from_i32(status.code), status.message).into());
            }
        }
        Ok(())
    }

    /// Sends those of these blobs that the server does not have.
    pub(crate) async fn send_missing(&self, blobs: Vec<Blob>) -> Result<(), Failure> {
        let names: Vec<Digest> = blobs.iter().map(|blob| blob.digest.clone()).collect();
        let mut missing = self.missing(&names).await?;
        // Each goes by itself: most are small, and one or two are large.
        for blob in blobs {
            if missing.remove(&blob.digest.hash) {
                self.send_blobs(vec![blob]).await?;
            }
        }
        Ok(())
    }

    /// Reads a blob by its name alone.
    pub(crate) async fn read_one(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        let size = u64::try_from(digest.size_bytes).unwrap_or(u64::MAX);
        let nonsense = |why: &str| Failure::Nonsense(format!("{why}: {}", digest.hash));
        if size > LARGEST {
            return Err(nonsense("an output that is far too large"));
        }
        let bytes = match size + BESIDE > self.limit() {
            true => self.stream(digest, size).await?,
            false => {
                let mut read = self.read_blobs(std::slice::from_ref(digest), size).await?;
                read.remove(&digest.hash).ok_or_else(|| nonsense("it does not have what it named"))?
            }
        };
        match self.function.of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(nonsense("it has other bytes under a name")),
        }
    }

    async fn write_stream(&self, digest: &Digest, bytes: Vec<u8>) -> Result<(), Failure> {
        let size = bytes.len() as i64;
        let upload = format!("uploads/{}/", uuid::Uuid::new_v4());
        let name = self.resource(&upload, &format!("blobs/{}{}/{size}", self.function.prefix(), digest.hash));
        let answer = self.link.call("sending a blob", deadline_of(bytes.len() as u64), |channel| {
            let mut pieces = Vec::new();
            let mut write_offset = 0;
            for data in bytes.chunks(PIECE) {
                let end = write_offset + data.len() as i64;
                let resource_name = if write_offset == 0 { name.clone() } else { String::new() };
                let (data, finish_write) = (data.to_vec(), end == size);
                pieces.push(WriteRequest { resource_name, write_offset, finish_write, data });
                write_offset = end;
            }
            let request = self.link.request(stream::iter(pieces));
            async { Ok(ByteStreamClient::new(channel).write(request?).await?) }
        });
        // A server that has it already may end the stream early, and says the whole size.
        match answer.await?.committed_size {
            committed if committed == size || committed == -1 => Ok(()),
            committed => Err(Failure::Nonsense(format!("of a blob of {size} bytes it took {committed}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_so_that_each_part_fits() {
        let split = |sizes: &[u64]| parts(sizes, 1000);
        assert_eq!(split(&[]), []);
        assert_eq!(split(&[100, 200, 300, 1000]), [0..3, 3..4]);
        assert_eq!(split(&[600, 600, 100]), [0..1, 1..3]);
        assert_eq!(split(&[1, 5000, 1]), [0..1, 1..2, 2..3]);
        assert_eq!(parts(&[0; 1200], 1 << 30), [0..500, 500..1000, 1000..1200]);
    }
}
