"""The figures of the page Live: where they come from and what is worked out of them. app/ui/pages/ shows them."""
