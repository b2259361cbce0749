"""`dml cost`: what the templates will cost, before anything is deployed; operator time, no AWS account needed."""
