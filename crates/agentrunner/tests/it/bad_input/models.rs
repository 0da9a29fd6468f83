//! Models that say nonsense, and providers that say it badly, each on the true wire of all three.

use super::rig::{FACES, Rig, failed, says};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_calls_wrongly_is_told_to_it() {
    let rig = Rig::new().await;
    for face in FACES {
        for (prompt, parts) in [
            (
                "unknown tool",
                &["no tool \"raed\"", "did you mean \"read\""][..],
            ),
            (
                "bad arguments",
                &["not called", "\"name\" is a required property"],
            ),
            ("broken arguments", &["not called", "not JSON"]),
        ] {
            // Ollama's arguments are JSON, not a text that should be; such an answer is no answer at all.
            if (face, prompt) == ("ollama", "broken arguments") {
                continue;
            }
            let result = rig.product.run(face, prompt).await;
            assert_eq!(result["status"], "completed", "{face}, {prompt}: {result}");
            says(result["output"].as_str().unwrap(), parts);
        }
    }
    assert!(
        rig.effects.calls().is_empty(),
        "none of them reached the tool"
    );
    assert!(
        rig.provider.rejections().is_empty(),
        "{:?}",
        rig.provider.rejections()
    );
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_loops_for_ever_is_stopped() {
    let rig = Rig::new().await;
    let result = rig.product.run("openai", "loop").await;
    let message = failed(&result, "MAX_STEPS_EXCEEDED");
    says(&message, &["4", "max_steps"]);
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_becomes_whole_fails_the_execution() {
    let rig = Rig::new().await;
    let retry = "submit it again later, or raise retry_config.max_retries";
    let cases = [
        ("garbage", "sent what is no answer"),
        ("cut", "broke off in the middle of its answer"),
        ("half", "broke off in the middle of its answer"),
        ("early", "broke off in the middle of its answer"),
        ("huge", "sends more than any answer has"),
        ("reset", "closed the connection without an answer"),
        ("html", "answered with a web page"),
        // How it ends is the face's affair: by time, by size, or by what makes no sense any more.
        ("endless", ""),
    ];
    for face in FACES {
        for (prompt, said) in cases {
            let message = failed(&rig.product.run(face, prompt).await, "MODEL_UNAVAILABLE");
            says(&message, &[said, retry]);
        }
        rig.is_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_never_answers_is_given_up_after_its_timeout() {
    let rig = Rig::new().await;
    for face in FACES {
        for prompt in ["silent", "silence"] {
            let result = rig.product.run(face, prompt).await;
            let message = failed(&result, "MODEL_UNAVAILABLE");
            says(&message, &["2 s", "llm_config.timeout"]);
        }
    }
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_named_with_its_variable() {
    let project = crate::product::Project::new();
    project.agent(
        "keyless",
        "name: keyless\nexecution_mode: autonomous\nllm_config: { provider: openai, model: gpt-4o-mini }\n\
         system_prompt: Answer.\n",
    );
    let product = crate::product::Product::up(&project, &[]).await;
    let result = product.run("keyless", "hello").await;
    let message = failed(&result, "MODEL_REJECTED");
    says(
        &message,
        &["there is no key for openai", "set OPENAI_API_KEY"],
    );
    let log = crate::product::log(&project);
    assert!(log.contains("set OPENAI_API_KEY"), "{log}");
}
