"""`sartor sparsify-rnn`: sparse persistent recurrent layers."""
