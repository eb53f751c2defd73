"""The experiments of "Evaluating Data Influence in Meta Learning", each from one command."""
