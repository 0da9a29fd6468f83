//! One streaming model call behind one trait: OpenAI, Anthropic, Bedrock, Ollama, scripted. A whole answer is a folded stream.
//!
//! [`Providers`] is the model that everything else uses: it looks at [`LlmConfig::provider`](domain::definition::LlmConfig)
//! and speaks that provider's own wire format. Each adapter is a folder of three files: `request` writes the
//! question, `stream` reads the answer, `error` reads a refusal. What they share: [`transcript`] pairs calls with
//! results, [`dialogue`] makes two sides of them where a format knows no more, [`wire`] turns a body into chunks,
//! [`failure`] turns a refusal into an [`Error`].
//!
//! Everything that comes back is untrusted. A line, an event, a body, a reply, the number of calls and the time
//! between two reads are bounded; an answer without its end mark never counts as whole.

mod anthropic;
#[cfg(feature = "bedrock")]
mod bedrock;
mod chunk;
mod dialogue;
mod endpoint;
mod error;
mod failure;
mod fold;
mod http;
mod json;
mod lines;
mod ollama;
mod openai;
mod prices;
mod probe;
mod providers;
mod request;
mod retry_after;
mod schema;
mod scripted;
mod settings;
mod transcript;
mod wire;

#[cfg(feature = "bedrock")]
pub use bedrock::{AwsKey, AwsLogin, SecretsManager};
pub use chunk::{Answer, ChatStream, Chunk};
pub use error::Error;
pub use fold::{Limits, fold};
pub use prices::{Price, context_window, cost, price};
pub use probe::{Probed, ollama_models};
pub use providers::Providers;
pub use request::{ChatModel, ChatRequest, ToolSpec};
pub use settings::{AwsSettings, Host, Key, ProviderSettings};
