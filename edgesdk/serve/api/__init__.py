"""The routes of OpenAI's API that fit one local model: one module a route, with what clients send and get."""
