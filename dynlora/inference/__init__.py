"""A trained model that answers: loaded, examined, served to pages by a child process.

`worker.py` is the child, `dynlora answer`; `client.py` is the other end, free of torch. A request is a line of JSON,
and so is the response. The child keeps two models, serves one request at a time for all viewers, and ends after five
idle minutes. What a person waits for is a stream that advances between requests (`streams.py`). `session.py` holds what
can be requested, for the command line too. Nothing of a user's is on the child's command line.
"""
