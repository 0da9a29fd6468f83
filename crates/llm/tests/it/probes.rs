//! The cheap questions that `doctor` and `init` ask.

use agentrunner_llm::{ProviderSettings, Providers, ollama_models};
use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use testkit::ProviderStandIn;
use testkit::provider::Answer;

use crate::support::{FACES, providers};

#[tokio::test]
async fn a_provider_that_answers_is_counted() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("never"));
    for face in FACES {
        let told = providers(&stand_in).probe(face).await.unwrap().sentence;
        assert!(told.starts_with(face.as_str()), "{told}");
        assert!(told.ends_with("with 3 models"), "{told}");
    }
    stand_in.list_models(["llama3.2", "qwen3"]);
    let models = ollama_models(&stand_in.url()).await.unwrap();
    assert_eq!(models, ["llama3.2", "qwen3"]);
    assert_eq!(stand_in.count(), 0, "no model was called");
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("never"));
    let url = stand_in.url();
    drop(stand_in);
    let error = ollama_models(&url).await.unwrap_err();
    assert_eq!(error.class, Class::Unavailable);
    assert!(error.message.contains("ollama serve"), "{error}");
    let providers = Providers::new(ProviderSettings::default());
    let error = providers.probe(Provider::Anthropic).await.unwrap_err();
    assert_eq!(error.class, Class::Auth);
    assert!(providers.probe(Provider::Scripted).await.is_ok());
}
