//! One streaming model call behind one trait: OpenAI, Anthropic, Ollama, scripted.
