# `make run` and `make test` are the whole set-up. See README.md.
