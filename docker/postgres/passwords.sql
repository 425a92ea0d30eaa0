-- Run after roles.sql as PostgreSQL's superuser: gives its roles passwords, so that they can log in.
\set worker `cat /run/secrets/worker_password`
\set viewer `cat /run/secrets/viewer_password`
ALTER ROLE tlopt_worker PASSWORD :'worker';
ALTER ROLE tlopt_viewer PASSWORD :'viewer';
GRANT CONNECT ON DATABASE tlopt TO tlopt_worker, tlopt_viewer;
