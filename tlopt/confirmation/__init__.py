"""The best points trained again over seeds; the only reader of the test split."""
