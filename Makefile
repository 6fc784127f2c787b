# Every target is one script that runs without make too. VENV names the environment (default .venv); TORCH names another
# torch requirement and TORCH_INDEX another index for it (scripts/environment.sh).

.PHONY: demo test environment format bench-tokenizer bench-train clean

demo:
	sh scripts/demo.sh

test:
	sh scripts/test.sh

environment:
	sh scripts/environment.sh

format: environment
	cargo fmt --all
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# PEERS and NEXT name interpreters with the peers of benches/tokenizer.py; without them only pylm is timed.
bench-tokenizer: environment
	.venv/bin/python benches/tokenizer.py $(if $(PEERS),--peers $(PEERS)) $(if $(NEXT),--next $(NEXT))

bench-train:
	.venv/bin/python benches/train.py

clean:
	rm -rf build target .venv dist
